//! A response's body: whole, or server-sent events made of a stream's deltas.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http_body::Frame;
use serde_json::{Value, json};

use super::error_object;
use crate::error::{Error, Result};
use crate::stream::ChatStream;
use crate::types::{ChatDelta, ChatResponse};

/// What a stream's deltas and end are as events. The two APIs differ here and nowhere else.
pub(super) trait Events: Send + Sync {
    fn first(&mut self) -> Vec<Event>;
    fn delta(&mut self, delta: ChatDelta) -> Vec<Event>;
    fn end(&mut self, response: &ChatResponse) -> Vec<Event>;
    fn error(&mut self, error: &Error) -> Vec<Event> {
        vec![Event::Data(json!({"error": error_object(error)}))]
    }
}

pub(super) enum Event {
    Data(Value),
    Named(&'static str, Value),
    Done,
}

impl Event {
    fn bytes(self) -> Bytes {
        match self {
            Event::Data(value) => format!("data: {value}\n\n"),
            Event::Named(name, value) => format!("event: {name}\ndata: {value}\n\n"),
            Event::Done => "data: [DONE]\n\n".to_owned(),
        }
        .into()
    }
}

/// The body of a response: an `http_body::Body` and a `Stream` of [`Bytes`]. Dropped before its end, it cancels its request.
///
/// ```
/// use std::{future::poll_fn, pin::Pin};
/// use bytes::Bytes;
/// use http_body::Body as _;
/// use omni_bridge_client::{mock::Mock, openai::OpenAi};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let openai = OpenAi::new(&Mock::new().reply("hi").spawn().await?);
/// let body = r#"{"model": "any/model", "messages": [{"role": "user", "content": "hello"}]}"#;
/// let request = http::Request::post("/v1/chat/completions").body(Bytes::from(body)).expect("a valid request");
/// let mut body = openai.respond(request).await.into_body();
/// let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.expect("a frame");
/// let data = frame.ok().and_then(|frame| frame.into_data().ok()).expect("its data");
/// assert!(data.starts_with(b"{") && data.ends_with(b"}"));
/// # Ok(())
/// # }
/// ```
pub struct Body(Inner);

enum Inner {
    Whole(Option<Bytes>),
    Events(Box<EventStream>),
}

struct EventStream {
    stream: Option<ChatStream>,
    events: Box<dyn Events>,
    ready: VecDeque<Event>,
}

impl Body {
    pub(super) fn whole(text: String) -> Self {
        Body(Inner::Whole(Some(text.into())))
    }

    /// Waits for the first delta, so that a request that fails before it is a failure by its status.
    pub(super) async fn events(mut stream: ChatStream, mut events: Box<dyn Events>) -> Result<Self> {
        let mut ready = VecDeque::from(events.first());
        let mut stream = match stream.next().await {
            Some(delta) => {
                ready.extend(events.delta(delta?));
                Some(stream)
            }
            None => Some(stream),
        };
        if let Some(response) = stream.as_ref().and_then(ChatStream::response) {
            ready.extend(events.end(response));
            stream = None;
        }
        Ok(Body(Inner::Events(Box::new(EventStream { stream, events, ready }))))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take()),
            Inner::Events(events) => events.poll(context),
        }
    }
}

impl EventStream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event.bytes()));
            }
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(None);
            };
            let Poll::Ready(delta) = Pin::new(&mut *stream).poll_next(context) else {
                return Poll::Pending;
            };
            let events = match (delta, stream.response()) {
                (Some(Ok(delta)), _) => self.events.delta(delta),
                (Some(Err(error)), _) => self.events.error(&error),
                (None, Some(response)) => self.events.end(response),
                (None, None) => Vec::new(),
            };
            self.ready.extend(events);
            if !stream.is_running() {
                self.stream = None;
            }
        }
    }
}

impl Stream for Body {
    type Item = std::result::Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context).map(|bytes| bytes.map(Ok))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        self.poll(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self.0, Inner::Whole(_)) { "whole" } else { "events" };
        f.debug_tuple("Body").field(&kind).finish()
    }
}
