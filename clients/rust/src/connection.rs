//! One worker's conversation over a pair of byte streams.
//!
//! Owns the calls in flight: their numbers, their written bytes, their deltas and responses. Refuses to know the source of the bytes
//! and the treatment of a lost worker.
//!
//! **The reader never waits for a consumer.** Whatever a caller does with its stream, the next line is read and passed to its call.
//! `Call::add` has the policy for deltas that are not consumed.
//!
//! **A caller writes its request itself** if the pipe has room at that moment: waking another thread costs more than the write. The
//! writer task writes only what the pipe had no room for.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;

use crate::call::{Call, lock};
use crate::credentials::{Credentials, Responder};
use crate::error::{Error, ErrorKind, Result};
use crate::framing::{Incoming, Line, Lines, decode, encode, id_of, without_lone_surrogates};
use crate::io::Io;
use crate::types::{ChatDelta, InitializeResult, Limits};

pub(crate) const PROTOCOL_VERSION: &str = "omni-bridge/1";
/// Requests that wait for the pipe. One more and its caller waits.
const QUEUED_REQUESTS: usize = 32;
/// Something that prints this many lines which are no messages is not omni-bridge.
const UNREADABLE_LINES: usize = 100;
/// How long a worker that has closed its stdin may take to close its stdout.
const DYING: Duration = Duration::from_secs(5);
/// A program that has printed a line which is not a message, and then nothing for this time, will not respond to `initialize`.
const SILENT_AFTER_GARBAGE: Duration = Duration::from_secs(5);
/// Until its engine is ready, a worker may be silent for this many times as long: it imports its libraries.
const STARTING_FACTOR: u32 = 6;
/// The longest response that is read. Requests have the worker's own limit.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// The worker reads its stdin to the end and then exits, so closing it is a message like any other.
enum Control {
    Line(Arc<Vec<u8>>),
    /// A line is half written; the rest of it is due.
    Drain,
    CloseInput,
}

struct Outgoing {
    line: Arc<Vec<u8>>,
    call: Arc<Call>,
}

/// How a connection's output ended.
pub(crate) struct Ending(pub(crate) String);

/// Reader and writer stop when this is dropped, and what is in flight fails.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 3],
}

struct Shared {
    io: Io,
    /// `None` once the worker's stdin is closed.
    output: Mutex<Option<Output>>,
    /// Messages read so far. A worker for which it stays the same is silent.
    heard: AtomicU64,
    calls: Mutex<Calls>,
    requests: mpsc::Sender<Outgoing>,
    /// Unbounded, because a drop can't wait: a call in flight is cancelled once, and the number of calls has a limit.
    control: mpsc::UnboundedSender<Control>,
    permits: Arc<Semaphore>,
    initialize_result: OnceLock<InitializeResult>,
    ready: watch::Sender<bool>,
    lost: watch::Sender<Option<Error>>,
    responder: Responder,
}

#[derive(Default)]
struct Calls {
    in_flight: HashMap<u64, Entry>,
    refused: Option<Error>,
}

struct Entry {
    call: Arc<Call>,
    /// Released when the worker has responded, not when the caller drops the call: until then the call counts in the worker.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Starts the tasks; [`initialize`](Connection::initialize) comes next. `why` turns the end of the output into the error that calls get.
    pub(crate) fn open<R, W, F, Fut>(
        io: &Io,
        hung_after: Duration,
        credentials: Option<Credentials>,
        reader: R,
        writer: W,
        why: F,
    ) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
        F: FnOnce(Ending) -> Fut + Send + 'static,
        Fut: Future<Output = Error> + Send + 'static,
    {
        let (requests, queued) = mpsc::channel(QUEUED_REQUESTS);
        let (control, controls) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            io: io.clone(),
            output: Mutex::new(Some(Output::new(writer))),
            heard: AtomicU64::new(0),
            calls: Mutex::default(),
            requests,
            control,
            permits: Arc::new(Semaphore::new(0)),
            initialize_result: OnceLock::new(),
            ready: watch::Sender::new(false),
            lost: watch::Sender::new(None),
            responder: Responder::new(credentials),
        });
        let reading = io.spawn({
            let shared = Arc::clone(&shared);
            async move {
                let ending = read(&shared, reader).await;
                shared.fail(why(ending).await);
            }
        });
        let writing = io.spawn(write(Arc::clone(&shared), queued, controls));
        let watching = io.spawn(watch_for_silence(Arc::clone(&shared), hung_after));
        Connection { shared, tasks: [reading.abort_handle(), writing.abort_handle(), watching.abort_handle()] }
    }

    /// The handshake. Nothing else may be called before it has succeeded.
    pub(crate) async fn initialize(&self, id: u64) -> Result<()> {
        let params = json!({
            "protocolVersion": PROTOCOL_VERSION,
            "clientInfo": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
            "capabilities": self.shared.responder.capabilities(),
            "processId": std::process::id(),
        });
        let response = self.shared.start(id, Arc::new(encode(Some(id), "initialize", params)?), None).await?.outcome().await?;
        let result: InitializeResult = parse(&response)?;
        if !is_compatible(&result.protocol_version) {
            let InitializeResult { protocol_version, server_info, .. } = result;
            let said = format!(
                "{} {} speaks {protocol_version:?}, this client {PROTOCOL_VERSION:?}; install versions of the two that match",
                server_info.name, server_info.version
            );
            return Err(Error::new(ErrorKind::VersionMismatch, said));
        }
        self.shared.notify(encode(None, "notifications/initialized", json!({}))?);
        self.shared.permits.add_permits(result.limits.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        self.shared.ready.send_if_modified(|ready| result.engine.ready && !std::mem::replace(ready, true));
        let _ = self.shared.initialize_result.set(result);
        Ok(())
    }

    pub(crate) fn initialize_result(&self) -> InitializeResult {
        self.shared.initialize_result.get().cloned().unwrap_or_default()
    }

    /// Whether it takes calls.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.calls().refused.is_none()
    }

    /// Requests without a response so far.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.calls().in_flight.len()
    }

    /// Waits its turn if the worker has as many requests as it takes, then queues the request.
    pub(crate) async fn call(&self, id: u64, line: Arc<Vec<u8>>) -> Result<CallHandle> {
        let limit = self
            .shared
            .initialize_result
            .get()
            .map_or_else(|| Limits::default().max_message_bytes, |result| result.limits.max_message_bytes);
        if line.len() > limit {
            let said = format!("the request has {} bytes, the worker reads {limit}; see --max-message-bytes", line.len());
            return Err(Error::new(ErrorKind::InvalidRequest, said));
        }
        match Arc::clone(&self.shared.permits).acquire_owned().await {
            Ok(permit) => self.shared.start(id, line, Some(permit)).await,
            Err(_) => Err(self.shared.refusal()),
        }
    }

    /// A request that needs no place among the others: `ping`, `initialize`.
    pub(crate) async fn call_at_once(&self, id: u64, line: Arc<Vec<u8>>) -> Result<CallHandle> {
        self.shared.start(id, line, None).await
    }

    /// Accepts no more requests: writes the queued ones, then closes the worker's stdin.
    pub(crate) fn close_input(&self) {
        self.shared
            .calls()
            .refused
            .get_or_insert_with(|| Error::new(ErrorKind::Closed, "the worker was shut down").retryable(true));
        self.shared.permits.close();
        self.shared.send(Control::CloseInput);
    }

    pub(crate) fn fail(&self, error: Error) {
        self.shared.fail(error);
    }

    /// Sends a ping, and gives the worker up if it does not respond in time.
    pub(crate) async fn check(&self, limit: Duration) {
        check(&self.shared, limit, "it let a deadline pass").await;
    }

    /// Whether the worker's engine is warm.
    pub(crate) fn is_ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// Waits for the end of the connection.
    pub(crate) async fn lost(&self) -> Error {
        let mut lost = self.shared.lost.subscribe();
        let lost = lost.wait_for(Option::is_some).await;
        lost.ok().and_then(|error| error.clone()).unwrap_or_else(|| Error::new(ErrorKind::Closed, "the connection was closed"))
    }

    /// Waits until LiteLLM is warm.
    pub(crate) async fn ready(&self) -> Result<()> {
        let mut ready = self.shared.ready.subscribe();
        tokio::select! {
            Ok(_) = ready.wait_for(|ready| *ready) => Ok(()),
            error = self.lost() => Err(error),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.fail(Error::new(ErrorKind::Closed, "the bridge was dropped"));
    }
}

impl Shared {
    async fn start(self: &Arc<Self>, id: u64, line: Arc<Vec<u8>>, permit: Option<OwnedSemaphorePermit>) -> Result<CallHandle> {
        let call = Arc::new(Call::new(id));
        {
            let mut calls = self.calls();
            if let Some(error) = &calls.refused {
                return Err(error.clone());
            }
            calls.in_flight.insert(id, Entry { call: Arc::clone(&call), _permit: permit });
        }
        let handle = CallHandle { shared: Arc::clone(self), call: Arc::clone(&call), finished: false };
        let queue_is_empty = self.requests.capacity() == QUEUED_REQUESTS;
        if queue_is_empty && self.write_now(&line, || call.begin()) {
            return Ok(handle);
        }
        match self.requests.send(Outgoing { line, call }).await {
            Ok(()) => Ok(handle),
            Err(_) => Err(self.refusal()),
        }
    }

    /// Writes as much of the line as the pipe takes, and leaves the rest to the writer task. False if another line is being written
    /// or the pipe is closed; `begins` was not called then.
    fn write_now(&self, line: &Arc<Vec<u8>>, begins: impl FnOnce() -> bool) -> bool {
        let mut output = lock(&self.output);
        let Some(output) = output.as_mut().filter(|output| output.is_idle()) else {
            return false;
        };
        if begins() {
            output.begin(Arc::clone(line));
            let _runtime = self.io.enter();
            // Pending, or an error, which the writer task then meets and reports.
            if !matches!(output.poll_drain(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))) {
                self.send(Control::Drain);
            }
        }
        true
    }

    fn notify(&self, line: Vec<u8>) {
        let line = Arc::new(line);
        if !self.write_now(&line, || true) {
            self.send(Control::Line(line));
        }
    }

    fn send(&self, control: Control) {
        let _ = self.control.send(control); // the writer is gone only if the connection is
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }

    fn refusal(&self) -> Error {
        self.calls().refused.clone().unwrap_or_else(|| Error::new(ErrorKind::Closed, "the worker was shut down").retryable(true))
    }

    /// The end: no request in flight gets a response any more. Only the first reason counts.
    fn fail(&self, error: Error) {
        let in_flight = {
            let mut calls = self.calls();
            calls.refused = Some(error.clone().sent(false).retryable(true));
            std::mem::take(&mut calls.in_flight)
        };
        self.permits.close();
        self.responder.cancel_all();
        lock(&self.output).take();
        for entry in in_flight.into_values() {
            entry.call.lose(&error);
        }
        self.lost.send_if_modified(|lost| lost.is_none() && lost.replace(error).is_none());
    }

    /// Returns the call that has a new delta; the reader wakes its consumer once for all that it has read.
    fn take(self: &Arc<Self>, message: Incoming) -> Option<Arc<Call>> {
        match message {
            Incoming::Delta { id, seq, delta } => {
                let call = self.calls().in_flight.get(&id).map(|entry| Arc::clone(&entry.call));
                let call = call?;
                if let Err(error) = call.add(seq, delta) {
                    self.cancel(&call);
                    call.finish(Err(error));
                }
                return Some(call);
            }
            Incoming::Response { id, outcome } => {
                let entry = self.calls().in_flight.remove(&id);
                if let Some(entry) = entry {
                    entry.call.finish(outcome);
                } else {
                    tracing::debug!(id, "a response to a request that is not in flight");
                }
            }
            Incoming::Unattributed(error) => self.attribute(error),
            Incoming::Ready => {
                self.ready.send_replace(true);
            }
            Incoming::Request { id, method, params } => {
                let shared = Arc::downgrade(self);
                let respond = move |line| {
                    if let Some(shared) = shared.upgrade() {
                        shared.notify(line);
                    }
                };
                self.responder.begin(&self.io, id, &method, &params, respond);
            }
            Incoming::Cancelled { id } => self.responder.cancel(&id),
            Incoming::Other => tracing::debug!("a message of no concern to this client"),
        }
        None
    }

    /// A response or a delta of this request that can't be decoded: its caller must not wait for another.
    fn fail_unreadable(&self, id: u64, error: &serde_json::Error) {
        let Some(entry) = self.calls().in_flight.get(&id).map(|entry| Arc::clone(&entry.call)) else { return };
        self.cancel(&entry);
        self.calls().in_flight.remove(&id);
        let message = format!("the worker's message for this request can't be read: {error}");
        entry.finish(Err(Error::new(ErrorKind::Protocol, message).sent(true)));
    }

    /// A request that the worker could not read. Framing rejects all known causes. With several requests in flight it is unknown which
    /// one it was, and its caller waits until its deadline.
    fn attribute(&self, error: Error) {
        tracing::error!(%error, "the worker could not read a request");
        let mut calls = self.calls();
        let only = calls.in_flight.keys().next().copied().filter(|_| calls.in_flight.len() == 1);
        let entry = only.and_then(|id| calls.in_flight.remove(&id));
        drop(calls);
        if let Some(entry) = entry {
            entry.call.finish(Err(error));
        }
    }

    /// Removes the request if it is not written yet, otherwise sends a cancel to the worker.
    fn cancel(&self, call: &Call) {
        if call.retract() {
            self.calls().in_flight.remove(&call.id);
            return call.finish(Err(Error::new(ErrorKind::Cancelled, "it was cancelled before it was sent")));
        }
        let is_in_flight = self.calls().in_flight.contains_key(&call.id);
        if let (true, Ok(line)) = (is_in_flight, encode(None, "notifications/cancelled", json!({"requestId": call.id}))) {
            self.notify(line);
        }
    }
}

// --- tasks -------------------------------------------------------------------------------------------------------------------

async fn read<R: AsyncRead + Unpin>(shared: &Arc<Shared>, reader: R) -> Ending {
    let mut lines = Lines::new(reader, MAX_RESPONSE_BYTES);
    let mut unreadable = 0;
    let mut garbage = None;
    let mut waiting: Vec<Arc<Call>> = Vec::new();
    loop {
        if !lines.has_line() {
            waiting.drain(..).for_each(|call| call.wake());
        }
        let next = match &garbage {
            Some(text) if shared.initialize_result.get().is_none() => {
                match tokio::time::timeout(SILENT_AFTER_GARBAGE, lines.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ending(format!("it is no omni-bridge: it wrote {text:?} and then nothing")),
                }
            }
            _ => lines.next().await,
        };
        match next {
            Ok(Line::Whole(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
            Ok(Line::Whole(line)) => match decode(line) {
                Ok(message) => {
                    shared.heard.fetch_add(1, Ordering::Relaxed);
                    let call = shared.take(message);
                    let is_new = |call: &Arc<Call>| !waiting.last().is_some_and(|last| Arc::ptr_eq(last, call));
                    waiting.extend(call.filter(is_new));
                }
                Err(error) => {
                    if let Some(id) = id_of(line) {
                        shared.fail_unreadable(id, &error);
                    }
                    unreadable += 1;
                    let text = shortened(line);
                    tracing::warn!(%error, text, "a line on the worker's stdout is not a message");
                    if unreadable >= UNREADABLE_LINES {
                        return Ending(format!("it is no omni-bridge: its output has lines such as {text:?}"));
                    }
                    garbage = Some(text);
                }
            },
            Ok(Line::TooLong) => return Ending(format!("it wrote a line of more than {MAX_RESPONSE_BYTES} bytes")),
            Ok(Line::End) => return Ending("its output ended".to_owned()),
            Err(error) => return Ending(format!("its output can't be read: {error}")),
        }
    }
}

/// `omni-bridge/1`, or a minor version of it.
fn is_compatible(version: &str) -> bool {
    version.strip_prefix(PROTOCOL_VERSION).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// One sequence for all workers, so that a line can go to another one as it is.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A worker that has requests in flight and is silent for `hung_after` gets a ping, and as long again to respond.
async fn watch_for_silence(shared: Arc<Shared>, hung_after: Duration) {
    let (mut heard, mut silent_since) = (0, tokio::time::Instant::now());
    loop {
        tokio::time::sleep(hung_after / 4).await;
        let now = shared.heard.load(Ordering::Relaxed);
        if now != heard || shared.initialize_result.get().is_none() || shared.calls().in_flight.is_empty() {
            (heard, silent_since) = (now, tokio::time::Instant::now());
            continue;
        }
        let limit = if *shared.ready.borrow() { hung_after } else { hung_after * STARTING_FACTOR };
        if silent_since.elapsed() >= limit {
            check(&shared, limit, "it was silent with requests in flight").await;
            silent_since = tokio::time::Instant::now();
        }
    }
}

async fn check(shared: &Arc<Shared>, limit: Duration, reason: &str) {
    let ping = async {
        let id = next_id();
        shared.start(id, Arc::new(encode(Some(id), "ping", json!({}))?), None).await?.outcome().await
    };
    let heard = shared.heard.load(Ordering::Relaxed);
    // A ping may wait behind large requests; a worker that sends anything is not hung.
    if tokio::time::timeout(limit, ping).await.is_err() && shared.heard.load(Ordering::Relaxed) == heard {
        let message = format!("the worker hangs: {reason}, and it did not respond to a ping within {} s", limit.as_secs_f64());
        shared.fail(Error::new(ErrorKind::WorkerLost, message).sent(true));
    }
}

fn shortened(line: &[u8]) -> String {
    String::from_utf8_lossy(line.get(..200).unwrap_or(line)).into_owned()
}

/// The worker's stdin, and the line that is being written to it.
struct Output {
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    line: Arc<Vec<u8>>,
    written: usize,
}

impl Output {
    fn new(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Output { writer: Box::new(writer), line: Arc::default(), written: 0 }
    }

    fn is_idle(&self) -> bool {
        self.written == self.line.len()
    }

    fn begin(&mut self, line: Arc<Vec<u8>>) {
        (self.line, self.written) = (line, 0);
    }

    /// Writes the rest of the line.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while let Some(rest) = self.line.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.writer).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        Pin::new(&mut self.writer).poll_flush(context)
    }
}

impl Shared {
    async fn with_output<T>(
        &self,
        mut work: impl FnMut(&mut Output, &mut Context<'_>) -> Poll<std::io::Result<T>>,
    ) -> std::io::Result<T> {
        poll_fn(|context| match lock(&self.output).as_mut() {
            Some(output) => work(output, context),
            None => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        })
        .await
    }

    async fn drain(&self) -> std::io::Result<()> {
        self.with_output(Output::poll_drain).await
    }

    async fn write_line(&self, line: Arc<Vec<u8>>) -> std::io::Result<()> {
        let mut line = Some(line);
        self.with_output(|output, context| {
            ready!(output.poll_drain(context))?;
            line.take().map_or(Poll::Ready(Ok(())), |line| {
                output.begin(line);
                output.poll_drain(context)
            })
        })
        .await
    }

    async fn close_output(&self) -> std::io::Result<()> {
        self.with_output(|output, context| Pin::new(&mut output.writer).poll_shutdown(context)).await?;
        lock(&self.output).take();
        Ok(())
    }
}

/// Writes what callers could not write themselves.
async fn write(shared: Arc<Shared>, mut requests: mpsc::Receiver<Outgoing>, mut controls: mpsc::UnboundedReceiver<Control>) {
    let mut lost = shared.lost.subscribe();
    let work = async {
        loop {
            tokio::select! {
                biased;
                Some(next) = controls.recv() => match next {
                    Control::Line(line) => shared.write_line(line).await?,
                    Control::Drain => shared.drain().await?,
                    Control::CloseInput => requests.close(),
                },
                next = requests.recv() => match next {
                    Some(Outgoing { line, call }) => {
                        shared.drain().await?; // until then the request can be taken back
                        if call.begin() {
                            shared.write_line(line).await?;
                        }
                    }
                    None => return shared.close_output().await,
                },
            }
        }
    };
    let done: std::io::Result<()> = tokio::select! {
        done = work => done,
        _ = lost.wait_for(Option::is_some) => return,
    };
    if let Err(error) = done {
        // The reader is about to see the end too, and knows the reason better.
        if tokio::time::timeout(DYING, lost.wait_for(Option::is_some)).await.is_err() {
            shared.fail(Error::new(ErrorKind::WorkerLost, format!("the worker reads no requests any more: {error}")));
        }
    }
}

/// A caller's handle of its call. Dropped before the response, it cancels the request.
pub(crate) struct CallHandle {
    shared: Arc<Shared>,
    call: Arc<Call>,
    finished: bool,
}

impl CallHandle {
    /// The next delta; `None` once there will be no more, and then [`poll_outcome`](CallHandle::poll_outcome) is ready.
    pub(crate) fn poll_delta(&mut self, context: &Context<'_>) -> Poll<Option<ChatDelta>> {
        self.call.poll_delta(context)
    }

    /// The response. Must not be polled again once it was ready.
    pub(crate) fn poll_outcome(&mut self, context: &Context<'_>) -> Poll<Result<Box<RawValue>>> {
        let outcome = self.call.poll_outcome(context);
        self.finished = outcome.is_ready();
        outcome
    }

    pub(crate) async fn outcome(mut self) -> Result<Box<RawValue>> {
        poll_fn(|context| self.poll_outcome(context)).await
    }

    /// Waits until it is being written. An error means that it never was.
    pub(crate) async fn written(&mut self) -> Result<()> {
        poll_fn(|context| self.call.poll_written(context)).await
    }

    /// All that has been received so far.
    pub(crate) fn received(&self) -> ChatDelta {
        self.call.received()
    }

    /// Sends a cancel to the worker. The response still arrives.
    pub(crate) fn cancel(&self) {
        self.shared.cancel(&self.call);
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        if !self.finished {
            self.call.abandon();
            self.shared.cancel(&self.call);
        }
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(result: &RawValue) -> Result<T> {
    let clean = || without_lone_surrogates(result.get());
    serde_json::from_str(result.get())
        .or_else(|error| clean().map_or(Err(error), |result| serde_json::from_str(&result)))
        .map_err(|error| Error::new(ErrorKind::Protocol, format!("the worker's result can't be read: {error}")).sent(true))
}
