//! The bridge for programs without async: every call blocks its thread.
//!
//! Owns the waiting. Refuses to be called from async code, where it would block the executor.
//!
//! ```no_run
//! use omni_bridge_client::{ChatRequest, blocking::Bridge};
//!
//! # fn main() -> omni_bridge_client::Result<()> {
//! let bridge = Bridge::spawn()?;
//! for text in bridge.chat_stream(ChatRequest::new("openai/gpt-4o-mini").user("A story, please"))?.text() {
//!     print!("{}", text?);
//! }
//! bridge.shutdown();
//! # Ok(())
//! # }
//! ```

use std::borrow::Borrow;
use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::BridgeBuilder;
use crate::error::Result;
use crate::stream;
use crate::tools::{ToolRun, ToolRunResult};
use crate::types::{
    ChatDelta, ChatRequest, ChatResponse, EmbedRequest, Embeddings, ModelSummary, Ranking, RerankRequest, WorkerStatus,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread. It needs no runtime: a bridge does its I/O on its own thread.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        match work.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A bridge with blocking calls: [`Bridge`](crate::Bridge) without async. Cheap to clone, and usable from many threads.
///
/// ```
/// use omni_bridge_client::{ChatRequest, blocking::Bridge, mock::Mock};
///
/// # fn main() -> omni_bridge_client::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let mock = runtime.block_on(Mock::new().reply("one two").spawn())?;
/// let bridge = Bridge::from(mock); // of a mock; Bridge::spawn() starts a worker
/// let response = bridge.chat(ChatRequest::new("any/model").user("count"))?;
/// assert_eq!(response.text(), "one two");
/// bridge.shutdown();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bridge(crate::Bridge);

impl From<crate::Bridge> for Bridge {
    fn from(bridge: crate::Bridge) -> Self {
        Bridge(bridge)
    }
}

impl Bridge {
    /// See [`Bridge::spawn`](crate::Bridge::spawn).
    pub fn spawn() -> Result<Bridge> {
        block_on(crate::Bridge::spawn()).map(Bridge)
    }

    /// Starts what a builder describes.
    pub fn spawn_with(builder: BridgeBuilder) -> Result<Bridge> {
        block_on(builder.spawn()).map(Bridge)
    }

    /// The same bridge for async code.
    #[must_use]
    pub fn as_async(&self) -> &crate::Bridge {
        &self.0
    }

    /// See [`Bridge::chat`](crate::Bridge::chat).
    pub fn chat(&self, request: impl Borrow<ChatRequest>) -> Result<ChatResponse> {
        block_on(self.0.chat(request))
    }

    /// See [`Bridge::chat_stream`](crate::Bridge::chat_stream).
    pub fn chat_stream(&self, request: impl Borrow<ChatRequest>) -> Result<ChatStream> {
        block_on(self.0.chat_stream(request)).map(ChatStream)
    }

    /// See [`Bridge::chat_as`](crate::Bridge::chat_as).
    #[cfg(feature = "schema")]
    pub fn chat_as<T: DeserializeOwned + schemars::JsonSchema>(&self, request: impl Borrow<ChatRequest>) -> Result<T> {
        block_on(self.0.chat_as(request))
    }

    /// Runs a tool run of [`Bridge::run_tools`](crate::Bridge::run_tools): `bridge.run(bridge.as_async().run_tools(&request, &tools))`.
    pub fn run(&self, run: ToolRun<'_>) -> Result<ToolRunResult> {
        block_on(run.into_future())
    }

    /// See [`Bridge::embed`](crate::Bridge::embed).
    pub fn embed(&self, request: impl Borrow<EmbedRequest>) -> Result<Embeddings> {
        block_on(self.0.embed(request))
    }

    /// See [`Bridge::rerank`](crate::Bridge::rerank).
    pub fn rerank(&self, request: impl Borrow<RerankRequest>) -> Result<Ranking> {
        block_on(self.0.rerank(request))
    }

    /// See [`Bridge::models`](crate::Bridge::models).
    pub fn models(&self) -> Result<Vec<ModelSummary>> {
        block_on(self.0.models())
    }

    /// See [`Bridge::status`](crate::Bridge::status).
    pub fn status(&self) -> Result<Vec<WorkerStatus>> {
        block_on(self.0.status())
    }

    /// See [`Bridge::call`](crate::Bridge::call).
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<T> {
        block_on(self.0.call(method, params))
    }

    /// See [`Bridge::shutdown`](crate::Bridge::shutdown).
    pub fn shutdown(&self) {
        block_on(self.0.shutdown());
    }
}

/// A stream that blocks: an iterator of deltas. Dropped before its end, it cancels the request.
///
/// ```
/// use omni_bridge_client::{ChatRequest, blocking::Bridge, mock::Mock};
///
/// # fn main() -> omni_bridge_client::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let mock = runtime.block_on(Mock::new().reply("one two").spawn())?;
/// let bridge = Bridge::from(mock); // of a mock; Bridge::spawn() starts a worker
/// let mut stream = bridge.chat_stream(ChatRequest::new("any/model").user("count"))?;
/// for delta in stream.by_ref() {
///     print!("{}", delta?.text());
/// }
/// assert_eq!(stream.response().expect("the stream has ended").text(), "one two");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a stream that is dropped cancels its request"]
pub struct ChatStream(stream::ChatStream);

impl ChatStream {
    /// The texts of the deltas.
    pub fn text(self) -> TextStream {
        TextStream(self.0.text())
    }

    /// The whole response, once the iterator has ended well.
    #[must_use]
    pub fn response(&self) -> Option<&ChatResponse> {
        self.0.response()
    }

    /// Reads the remaining deltas and returns the whole response.
    pub fn finish(self) -> Result<ChatResponse> {
        block_on(self.0.finish())
    }

    /// See [`ChatStream::cancel`](crate::ChatStream::cancel).
    pub fn cancel(self) -> Result<ChatResponse> {
        block_on(self.0.cancel())
    }
}

impl Iterator for ChatStream {
    type Item = Result<ChatDelta>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.0.next())
    }
}

/// The texts of a [`ChatStream`].
///
/// ```
/// use omni_bridge_client::{ChatRequest, blocking::Bridge, mock::Mock};
///
/// # fn main() -> omni_bridge_client::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let mock = runtime.block_on(Mock::new().reply("one two").spawn())?;
/// let bridge = Bridge::from(mock); // of a mock; Bridge::spawn() starts a worker
/// let texts = bridge.chat_stream(ChatRequest::new("any/model").user("count"))?.text();
/// let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
/// assert_eq!(texts, ["one ", "two"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a stream that is dropped cancels its request"]
pub struct TextStream(stream::TextStream);

impl TextStream {
    /// Reads the remaining deltas and returns the whole response.
    pub fn finish(self) -> Result<ChatResponse> {
        block_on(self.0.finish())
    }
}

impl Iterator for TextStream {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.0.next())
    }
}
