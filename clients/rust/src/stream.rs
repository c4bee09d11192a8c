//! A streamed answer, as its reader holds it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Sleep;

use crate::bridge::Bridge;
use crate::connection::{CallHandle, parse};
use crate::deadline::{check_if_late, late, too_late, total};
use crate::error::{Error, ErrorKind, Result};
use crate::supervisor::Worker;
use crate::types::{ChatDelta, ChatRequest, ChatResponse};

impl Bridge {
    /// Asks a model, and returns as soon as the request is on its way. What the provider has to say comes through the stream,
    /// errors included.
    pub async fn chat_stream(&self, request: impl Into<ChatRequest>) -> Result<ChatStream> {
        let mut request = self.prepare(request.into());
        request.stream = Some(true);
        let limit = total(request.deadlines);
        let (handle, worker) = late(self.pool().io(), limit, self.pool().call("chat", &request)).await?;
        Ok(ChatStream::new(handle, worker, self.clone(), limit))
    }
}

/// A streamed answer: deltas, then the end, and then the whole [`ChatResponse`] is there.
///
/// Read it with [`next`](ChatStream::next) or as a [`Stream`]. Dropped before the end, it cancels the request.
///
/// It may be read as slowly as you like: no other call waits for it. When 256 deltas are unread, further ones are joined to the last.
pub struct ChatStream {
    handle: CallHandle,
    worker: Arc<Worker>,
    _bridge: Bridge,
    late: Pin<Box<Sleep>>,
    state: State,
}

#[derive(Debug)]
enum State {
    Running,
    Failed,
    Done(Box<ChatResponse>),
}

impl ChatStream {
    pub(crate) fn new(handle: CallHandle, worker: Arc<Worker>, bridge: Bridge, limit: Duration) -> Self {
        let late = Box::pin(worker.io.sleep(limit));
        ChatStream { handle, worker, _bridge: bridge, late, state: State::Running }
    }

    /// The next delta, or `None` at the end. An error is the last item.
    pub async fn next(&mut self) -> Option<Result<ChatDelta>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// The whole answer, once the stream has ended well.
    pub fn response(&self) -> Option<&ChatResponse> {
        match &self.state {
            State::Done(response) => Some(response),
            _ => None,
        }
    }

    /// Reads what is left, and returns the whole answer.
    pub async fn finish(mut self) -> Result<ChatResponse> {
        while let Some(delta) = self.next().await {
            delta?;
        }
        match self.state {
            State::Done(response) => Ok(*response),
            _ => Err(Error::new(ErrorKind::Closed, "the stream has failed before").sent(true)),
        }
    }

    /// Cancels the request and waits for the worker's word on it: an error [`ErrorKind::Cancelled`] that says whether the connection
    /// to the provider is closed ([`Error::upstream_closed`]) and what had come ([`Error::partial`]); or the answer, if that was
    /// faster. To cancel without waiting, drop the stream.
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
                self.state = State::Done(Box::new(response));
                Poll::Ready(None)
            }
            Err(error) => {
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
