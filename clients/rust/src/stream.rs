//! A streamed response: the reader's side.

use std::borrow::Borrow;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Sleep;
use tracing::{Instrument, Span};

use crate::bridge::Bridge;
use crate::connection::{CallHandle, parse};
use crate::deadline::{check_if_late, late, too_late, total};
use crate::error::{Error, ErrorKind, Result};
use crate::spans;
use crate::supervisor::Worker;
use crate::types::{ChatDelta, ChatRequest, ChatResponse};

impl Bridge {
    /// Sends a chat, and returns as soon as it is being written to the worker. What the provider responds comes through the stream,
    /// errors included. Takes a [`ChatRequest`] or a reference to one.
    pub async fn chat_stream(&self, request: impl Borrow<ChatRequest>) -> Result<ChatStream> {
        let request = request.borrow();
        let span = spans::span("chat", &request.model);
        let params = self.params(request, true, &span);
        let limit = total(request.deadlines.or(self.defaults().deadlines));
        let call = || late(self.pool().io(), limit, self.pool().call("chat", &params));
        let outcome = self.retried(call).instrument(span.clone()).await;
        let (handle, worker) = outcome.inspect_err(|error| spans::record_error(&span, error))?;
        Ok(ChatStream::new(handle, worker, self.clone(), limit, span))
    }
}

/// A streamed response: deltas, then the end, and then the whole [`ChatResponse`].
///
/// Read it with [`next`](ChatStream::next) or as a [`Stream`]. Dropped before the end, it cancels the request.
///
/// It may be read as slowly as you like: no other call waits for it. When 256 deltas are unread, further ones are joined to the last.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::Mock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply("one two").spawn().await?;
/// let mut stream = bridge.chat_stream(ChatRequest::new("any/model").user("count")).await?;
/// let mut texts = Vec::new();
/// while let Some(delta) = stream.next().await {
///     texts.push(delta?.text().to_owned());
/// }
/// assert_eq!(texts, ["one ", "two"]);
/// assert_eq!(stream.response().expect("the stream has ended").text(), "one two");
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream that is dropped cancels its request"]
pub struct ChatStream {
    handle: CallHandle,
    worker: Arc<Worker>,
    _bridge: Bridge,
    late: Pin<Box<Sleep>>,
    span: Span,
    state: State,
}

#[derive(Debug)]
enum State {
    Running,
    Failed,
    Done(Box<ChatResponse>),
}

impl ChatStream {
    pub(crate) fn new(handle: CallHandle, worker: Arc<Worker>, bridge: Bridge, limit: Duration, span: Span) -> Self {
        let late = Box::pin(worker.io.sleep(limit));
        ChatStream { handle, worker, _bridge: bridge, late, span, state: State::Running }
    }

    /// The next delta, or `None` at the end. An error is the last item.
    pub async fn next(&mut self) -> Option<Result<ChatDelta>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// The whole response, once the stream has ended without an error.
    #[must_use]
    pub fn response(&self) -> Option<&ChatResponse> {
        match &self.state {
            State::Done(response) => Some(response),
            _ => None,
        }
    }

    /// Whether there may be more items.
    #[cfg(feature = "openai")]
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Reads the remaining deltas and returns the whole response.
    pub async fn finish(mut self) -> Result<ChatResponse> {
        while let Some(delta) = self.next().await {
            delta?;
        }
        match self.state {
            State::Done(response) => Ok(*response),
            _ => Err(Error::new(ErrorKind::Closed, "the stream has failed before").sent(true)),
        }
    }

    /// The same as [`finish`](ChatStream::finish): the whole response, without its deltas.
    pub async fn collect(self) -> Result<ChatResponse> {
        self.finish().await
    }

    /// The texts of the deltas as a separate stream, without reasoning, refusals and tool calls.
    ///
    /// ```no_run
    /// # async fn run(bridge: omni_bridge_client::Bridge) -> omni_bridge_client::Result<()> {
    /// use omni_bridge_client::ChatRequest;
    ///
    /// let mut texts = bridge.chat_stream(ChatRequest::new("openai/gpt-4o-mini").user("hi")).await?.text();
    /// while let Some(text) = texts.next().await {
    ///     print!("{}", text?);
    /// }
    /// let response = texts.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn text(self) -> TextStream {
        TextStream(self)
    }

    /// Cancels the request and waits for its response: an error [`ErrorKind::Cancelled`], which reports whether the connection to the
    /// provider is closed ([`Error::upstream_closed`]) and the content received so far ([`Error::partial`]); or the whole response, if
    /// that was faster. To cancel without waiting, drop the stream.
    pub async fn cancel(self) -> Result<ChatResponse> {
        self.handle.cancel();
        self.finish().await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ChatDelta>>> {
        if !matches!(self.state, State::Running) {
            return Poll::Ready(None);
        }
        let outcome = match self.handle.poll_delta(context) {
            Poll::Ready(Some(delta)) => return Poll::Ready(Some(Ok(delta))),
            Poll::Ready(None) => self.handle.poll_outcome(context),
            Poll::Pending => self.late.as_mut().poll(context).map(|()| Err(too_late().with_partial(self.handle.received()))),
        };
        let Poll::Ready(outcome) = outcome else {
            return Poll::Pending;
        };
        match outcome.and_then(|result| parse(&result)) {
            Ok(response) => {
                spans::record_response(&self.span, &response);
                self.state = State::Done(Box::new(response));
                Poll::Ready(None)
            }
            Err(error) => {
                spans::record_error(&self.span, &error);
                check_if_late(&error, &self.worker);
                self.state = State::Failed;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Stream for ChatStream {
    type Item = Result<ChatDelta>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatStream").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The texts of a [`ChatStream`]; made by [`ChatStream::text`].
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::Mock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply("one two").spawn().await?;
/// let mut texts = bridge.chat_stream(ChatRequest::new("any/model").user("count")).await?.text();
/// assert_eq!(texts.next().await.expect("a text")?, "one ");
/// let response = texts.finish().await?; // reads the rest
/// assert_eq!(response.text(), "one two");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a stream that is dropped cancels its request"]
pub struct TextStream(ChatStream);

impl TextStream {
    /// The next text, or `None` at the end. An error is the last item.
    pub async fn next(&mut self) -> Option<Result<String>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Reads the remaining deltas and returns the whole response.
    pub async fn finish(self) -> Result<ChatResponse> {
        self.0.finish().await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<String>>> {
        loop {
            return match self.0.poll(context) {
                Poll::Ready(Some(Ok(ChatDelta { content: Some(text), .. }))) if !text.is_empty() => Poll::Ready(Some(Ok(text))),
                Poll::Ready(Some(Ok(_))) => continue,
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            };
        }
    }
}

impl Stream for TextStream {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}
