//! One call: how much of it is written, its deltas, its response.
//!
//! Owns what its reader and its caller share. Refuses to know how either speaks to the worker.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
use crate::types::ChatDelta;

/// Deltas that wait for their consumer one by one; further ones are joined to the last.
const QUEUED_DELTAS: usize = 256;
/// A consumer that lets this much text gather gets no more.
const MAX_UNREAD_BYTES: usize = 64 * 1024 * 1024;

const QUEUED: u8 = 0;
const WRITTEN: u8 = 1; // or half-written
const RETRACTED: u8 = 2;

pub(crate) struct Call {
    pub(crate) id: u64,
    stage: AtomicU8,
    state: Mutex<CallState>,
}

#[derive(Default)]
struct CallState {
    deltas: VecDeque<ChatDelta>,
    /// All deltas so far as one: what a lost worker's caller gets as partial.
    received: ChatDelta,
    /// Of text in `deltas`.
    bytes: usize,
    next_seq: u64,
    abandoned: bool,
    /// Stays until it is taken; `responded` stays for good.
    outcome: Option<Result<Box<RawValue>>>,
    responded: bool,
    waker: Option<Waker>,
}

impl Call {
    pub(crate) fn new(id: u64) -> Self {
        Call { id, stage: AtomicU8::new(QUEUED), state: Mutex::default() }
    }

    fn moves(&self, to: u8) -> bool {
        self.stage.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Its first byte is about to be written. False if it was taken back.
    pub(crate) fn begin(&self) -> bool {
        let begins = self.moves(WRITTEN);
        self.wake();
        begins
    }

    /// True if no byte of it was written, nor ever will be.
    pub(crate) fn retract(&self) -> bool {
        self.moves(RETRACTED)
    }

    /// A delta for its consumer, which [`wake`](Call::wake) wakes.
    ///
    /// The policy for a slow consumer: 256 deltas wait one by one; further ones are joined to the last, which loses no text and
    /// needs no more memory than the response itself. The call fails when 64 MiB of text are waiting.
    pub(crate) fn add(&self, seq: u64, delta: ChatDelta) -> Result<()> {
        let mut state = lock(&self.state);
        if state.abandoned || state.responded {
            return Ok(());
        }
        if seq != state.next_seq {
            let said = format!("delta {seq} came where {} was due", state.next_seq);
            return Err(Error::new(ErrorKind::Protocol, said).sent(true));
        }
        state.next_seq += 1;
        state.bytes += delta.size();
        state.received.absorb(&delta);
        if state.bytes > MAX_UNREAD_BYTES {
            let said = "the stream's deltas were not read; it was cancelled";
            return Err(Error::new(ErrorKind::SlowConsumer, said).sent(true));
        }
        let full = state.deltas.len() >= QUEUED_DELTAS;
        let left = match state.deltas.back_mut() {
            Some(last) if full => last.join(delta),
            _ => Some(delta),
        };
        state.deltas.extend(left);
        Ok(())
    }

    pub(crate) fn finish(&self, outcome: Result<Box<RawValue>>) {
        let mut state = lock(&self.state);
        if !state.responded {
            state.responded = true;
            let received = std::mem::take(&mut state.received);
            state.outcome = Some(outcome.map_err(|error| error.with_partial(received)));
            wake(state);
        }
    }

    pub(crate) fn lose(&self, error: &Error) {
        let sent = !self.retract();
        let no_delta = lock(&self.state).next_seq == 0;
        self.finish(Err(error.clone().sent(sent).retryable(no_delta)));
    }

    pub(crate) fn wake(&self) {
        wake(lock(&self.state));
    }

    /// The next delta; `None` once there will be no more.
    pub(crate) fn poll_delta(&self, context: &Context<'_>) -> Poll<Option<ChatDelta>> {
        let mut state = lock(&self.state);
        match state.deltas.pop_front() {
            Some(delta) => {
                state.bytes = state.bytes.saturating_sub(delta.size());
                Poll::Ready(Some(delta))
            }
            None if state.responded => Poll::Ready(None),
            None => state.wait(context),
        }
    }

    /// The response, once.
    pub(crate) fn poll_outcome(&self, context: &Context<'_>) -> Poll<Result<Box<RawValue>>> {
        let mut state = lock(&self.state);
        if !state.responded {
            return state.wait(context);
        }
        let again = || Err(Error::new(ErrorKind::Closed, "the response was taken already"));
        Poll::Ready(state.outcome.take().unwrap_or_else(again))
    }

    /// Ready when it is being written. An error means that it never was.
    pub(crate) fn poll_written(&self, context: &Context<'_>) -> Poll<Result<()>> {
        let mut state = lock(&self.state);
        match &state.outcome {
            Some(Err(error)) if !error.was_sent() => Poll::Ready(Err(error.clone())),
            _ if state.responded || self.stage.load(Ordering::Acquire) == WRITTEN => Poll::Ready(Ok(())),
            _ => state.wait(context),
        }
    }

    /// All that has been received so far.
    pub(crate) fn received(&self) -> ChatDelta {
        lock(&self.state).received.clone()
    }

    /// Nobody waits for it any more.
    pub(crate) fn abandon(&self) {
        let mut state = lock(&self.state);
        state.abandoned = true;
        state.deltas = VecDeque::new();
        state.waker = None;
    }
}

impl CallState {
    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Wakes the caller once the lock is free: on another core it runs at once, and would wait for the lock.
fn wake(mut state: MutexGuard<'_, CallState>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A panic elsewhere must not spread: what these locks guard is consistent between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
