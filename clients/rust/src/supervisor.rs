//! Several workers that look like one: started, spread over, restarted, recycled, shut down.
//!
//! Owns the list of running workers and the time of the next start attempt. Refuses to know the methods of a worker.
//!
//! - A call goes to the worker with the fewest requests in flight.
//! - A worker that is lost fails what it had in flight and is started again: at once if it had lived for a while, else after a pause
//!   that doubles up to a limit. Calls wait meanwhile, or go to another worker.
//! - If a start fails, the waiting calls fail with its reason; so do those that come before the next attempt, if no worker is up.
//! - A request of which no byte was written when its worker was lost goes to another. Nothing that was written is sent again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::call::lock;
use crate::connection::{CallHandle, Connection, Ending, next_id};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::framing::encode;
use crate::io::{Io, IoThread};
use crate::process::{Launch, Process};

/// A worker that lived this long was fine; the next one may start at once.
const LIVED: Duration = Duration::from_secs(10);
/// A worker to be replaced ends when its last chat has, which is after this time at the latest: ten minutes are a chat's default.
const RETIRING: Duration = Duration::from_secs(630);

/// When to replace a worker that has grown. Only on systems that report a process's memory (Linux).
///
/// ```
/// use std::time::Duration;
/// use omni_bridge_client::{Bridge, Recycling};
///
/// let recycling = Recycling::above(800 << 20).min_age(Duration::from_secs(300)); // 800 MiB
/// let builder = Bridge::builder().recycling(recycling);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recycling {
    /// Resident bytes.
    pub above_bytes: u64,
    /// No worker is replaced before it has lived this long.
    pub min_age: Duration,
    /// How often to look.
    pub check_every: Duration,
}

impl Recycling {
    /// Replaces workers above this size that are at least a minute old; looks every five seconds.
    #[must_use]
    pub fn above(bytes: u64) -> Self {
        Recycling { above_bytes: bytes, min_age: Duration::from_secs(60), check_every: Duration::from_secs(5) }
    }

    /// No worker is replaced before it has lived this long.
    #[must_use]
    pub fn min_age(mut self, age: Duration) -> Self {
        self.min_age = age;
        self
    }

    /// How often to look.
    #[must_use]
    pub fn check_every(mut self, interval: Duration) -> Self {
        self.check_every = interval;
        self
    }
}

#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) launch: Launch,
    pub(crate) workers: usize,
    pub(crate) start_timeout: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) recycling: Option<Recycling>,
    pub(crate) hung_after: Duration,
    pub(crate) credentials: Option<Credentials>,
}

/// A worker that has responded to `initialize`.
pub(crate) struct Worker {
    pub(crate) connection: Connection,
    pub(crate) process: Option<Process>,
    pub(crate) io: Io,
    started: Instant,
    hung_after: Duration,
}

impl Worker {
    /// No response came in time. A worker that does not respond to a ping either is lost.
    pub(crate) async fn check(&self) {
        self.connection.check(self.hung_after).await;
    }

    async fn end(self: Arc<Self>, grace: Duration) {
        self.connection.close_input();
        match &self.process {
            Some(process) => process.end(grace).await,
            None => {
                let _ = tokio::time::timeout(grace, self.connection.lost()).await;
            }
        }
    }

    /// Returns when it is to be replaced.
    async fn outgrown(&self, recycling: Option<Recycling>) {
        let (Some(Recycling { above_bytes, min_age, check_every }), Some(process)) = (recycling, &self.process) else {
            return std::future::pending().await;
        };
        tokio::time::sleep(min_age.saturating_sub(self.started.elapsed())).await;
        while process.memory().is_none_or(|bytes| bytes <= above_bytes) {
            tokio::time::sleep(check_every).await;
        }
    }
}

#[derive(serde::Serialize)]
pub(crate) struct NoParams {}

enum Slot {
    Starting,
    Up(Arc<Worker>),
    Down(Error),
}

/// Dropped, it kills its workers.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    supervisors: Vec<AbortHandle>,
    shutdown_grace: Duration,
    shutdown: OnceLock<watch::Receiver<bool>>,
    /// Declared last: the workers' handles go first, then the thread, which kills what is left.
    thread: IoThread,
}

struct Shared {
    slots: Mutex<Vec<Slot>>,
    closed: Mutex<Option<Error>>,
    changed: watch::Sender<()>,
    turn: AtomicUsize,
    /// Workers that were replaced and have chats to end.
    retiring: Mutex<JoinSet<()>>,
}

impl Pool {
    /// Starts all workers at once; if one fails, all end.
    pub(crate) async fn start(plan: Plan) -> Result<Pool> {
        let (plan, thread) = (Arc::new(plan), IoThread::start()?);
        let starting: Vec<_> =
            (0..plan.workers.max(1)).map(|_| thread.io().spawn(start(Arc::clone(&plan), thread.io().clone()))).collect();
        let mut workers = Vec::new();
        for started in starting {
            let lost = |error| Error::new(ErrorKind::WorkerStart, format!("the task that starts a worker failed: {error}"));
            workers.push(started.await.map_err(lost)??);
        }
        let shared = Shared::new(&workers);
        let supervise = |(index, worker)| {
            thread.io().spawn(supervise(Arc::clone(&shared), index, worker, Arc::clone(&plan), thread.io().clone())).abort_handle()
        };
        let supervisors = workers.into_iter().enumerate().map(supervise).collect();
        Ok(Pool { shared, supervisors, shutdown_grace: plan.shutdown_grace, shutdown: OnceLock::new(), thread })
    }

    /// One worker that is not this crate's to start, and so not to restart.
    pub(crate) async fn over<R, W>(thread: IoThread, reader: R, writer: W, plan: Plan) -> Result<Pool>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let gone = |Ending(reason)| async move { Error::new(ErrorKind::WorkerLost, format!("the worker is gone: {reason}")) };
        let connection = Connection::open(thread.io(), plan.hung_after, plan.credentials.clone(), reader, writer, gone);
        let initialized = thread.io().timeout(plan.start_timeout, connection.initialize(next_id())).await;
        initialized.unwrap_or_else(|| Err(no_response("to initialize", plan.start_timeout))).map_err(as_start_error)?;
        let io = thread.io().clone();
        let worker = Arc::new(Worker { connection, process: None, io, started: Instant::now(), hung_after: plan.hung_after });
        let shared = Shared::new(std::slice::from_ref(&worker));
        let watching = thread.io().spawn({
            let shared = Arc::clone(&shared);
            async move { shared.set(0, Slot::Down(worker.connection.lost().await.sent(false).retryable(false))) }
        });
        let supervisors = vec![watching.abort_handle()];
        Ok(Pool { shared, supervisors, shutdown_grace: plan.shutdown_grace, shutdown: OnceLock::new(), thread })
    }

    pub(crate) fn io(&self) -> &Io {
        self.thread.io()
    }

    /// Sends a request to some worker. Returns when it is being written.
    pub(crate) async fn call(&self, method: &str, params: impl serde::Serialize) -> Result<(CallHandle, Arc<Worker>)> {
        let (id, line) = Pool::line(method, params)?;
        loop {
            let worker = self.shared.worker().await?;
            let written = async {
                let mut handle = worker.connection.call(id, Arc::clone(&line)).await?;
                handle.written().await?;
                Ok::<_, Error>(handle)
            };
            match written.await {
                Ok(handle) => return Ok((handle, worker)),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidRequest) => return Err(error),
                Err(error) => {
                    // A connection that refuses a request and calls itself open would be chosen again and again.
                    if worker.connection.is_open() {
                        worker.connection.fail(error.clone());
                    }
                    tracing::debug!(%error, "a request was not sent; trying another worker");
                }
            }
        }
    }

    /// A request's id and line.
    pub(crate) fn line(method: &str, params: impl serde::Serialize) -> Result<(u64, Arc<Vec<u8>>)> {
        let id = next_id();
        Ok((id, Arc::new(encode(Some(id), method, params)?)))
    }

    /// Those that are up.
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        let up = |slot: &Slot| match slot {
            Slot::Up(worker) => Some(Arc::clone(worker)),
            _ => None,
        };
        lock(&self.shared.slots).iter().filter_map(up).collect()
    }

    /// Some worker, once one is up.
    pub(crate) async fn worker(&self) -> Result<Arc<Worker>> {
        self.shared.worker().await
    }

    /// No more calls; those in flight get the grace. Returns when every worker has ended. The first call starts a task that no
    /// dropped future stops; further calls wait for the same task.
    pub(crate) async fn shut_down(&self) {
        let done = self.shutdown.get_or_init(|| {
            let (sender, done) = watch::channel(false);
            let workers = self.close("the bridge was shut down");
            let work = end_all(workers, Arc::clone(&self.shared), self.shutdown_grace);
            self.io().spawn(async move {
                work.await;
                sender.send_replace(true);
            });
            done
        });
        let mut done = done.clone();
        let _ = done.wait_for(|done| *done).await; // an error: the thread has ended, and the workers with it
    }

    fn close(&self, reason: &str) -> Vec<Arc<Worker>> {
        let workers = self.workers();
        for supervisor in &self.supervisors {
            supervisor.abort();
        }
        lock(&self.shared.closed).get_or_insert_with(|| Error::new(ErrorKind::Closed, reason));
        lock(&self.shared.slots).clear();
        self.shared.changed.send_replace(());
        workers
    }
}

async fn end_all(workers: Vec<Arc<Worker>>, shared: Arc<Shared>, grace: Duration) {
    let mut ending = JoinSet::new();
    for worker in workers {
        ending.spawn(worker.end(grace));
    }
    let mut retiring = std::mem::take(&mut *lock(&shared.retiring));
    let _ = tokio::time::timeout(grace, async { while retiring.join_next().await.is_some() {} }).await;
    while ending.join_next().await.is_some() {}
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close("the bridge was dropped");
    }
}

impl Shared {
    fn new(workers: &[Arc<Worker>]) -> Arc<Self> {
        Arc::new(Shared {
            slots: Mutex::new(workers.iter().cloned().map(Slot::Up).collect()),
            closed: Mutex::default(),
            changed: watch::Sender::new(()),
            turn: AtomicUsize::new(0),
            retiring: Mutex::default(),
        })
    }

    fn set(&self, index: usize, slot: Slot) {
        if let Some(place) = lock(&self.slots).get_mut(index) {
            *place = slot;
        }
        self.changed.send_replace(());
    }

    async fn worker(&self) -> Result<Arc<Worker>> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = self.choose() {
                return found;
            }
            if changed.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Closed, "the bridge was dropped"));
            }
        }
    }

    /// None: there is one to wait for.
    fn choose(&self) -> Option<Result<Arc<Worker>>> {
        if let Some(error) = &*lock(&self.closed) {
            return Some(Err(error.clone()));
        }
        let slots = lock(&self.slots);
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % slots.len().max(1); // among equals, each in turn
        let in_turn = || slots.iter().cycle().skip(first).take(slots.len());
        let up = in_turn().filter_map(|slot| match slot {
            Slot::Up(worker) if worker.connection.is_open() => Some(worker),
            _ => None,
        });
        // A worker that is still loading LiteLLM gets requests only if no other worker is warm.
        if let Some(worker) = up.min_by_key(|worker| (!worker.connection.is_ready(), worker.connection.in_flight())) {
            return Some(Ok(Arc::clone(worker)));
        }
        let mut reason = Error::new(ErrorKind::Closed, "there is no worker");
        for slot in in_turn() {
            match slot {
                Slot::Down(error) => reason = error.clone(),
                _ => return None,
            }
        }
        Some(Err(reason))
    }
}

/// Keeps one place filled, for good.
async fn supervise(shared: Arc<Shared>, index: usize, mut worker: Arc<Worker>, plan: Arc<Plan>, io: Io) {
    let mut failures = 0;
    loop {
        tokio::select! {
            error = worker.connection.lost() => {
                if let Some(process) = &worker.process {
                    process.kill();
                }
                tracing::warn!(%error, "a worker was lost");
                failures = if worker.started.elapsed() >= LIVED { 0 } else { failures + 1 };
                shared.set(index, Slot::Starting);
                worker = restart(&shared, index, &plan, &io, &mut failures).await;
            }
            () = worker.outgrown(plan.recycling) => match start_warm(&plan, &io).await {
                Ok(next) => {
                    tracing::info!("a worker has outgrown its limit and is replaced");
                    shared.set(index, Slot::Up(Arc::clone(&next)));
                    let outgrown = std::mem::replace(&mut worker, next);
                    let mut retiring = lock(&shared.retiring);
                    while retiring.try_join_next().is_some() {} // forgets those that have ended
                    retiring.spawn(outgrown.end(RETIRING));
                }
                Err(error) => {
                    tracing::warn!(%error, "the worker that was to replace one did not start");
                    tokio::time::sleep(plan.backoff.1).await;
                }
            }
        }
    }
}

async fn restart(shared: &Shared, index: usize, plan: &Arc<Plan>, io: &Io, failures: &mut u32) -> Arc<Worker> {
    loop {
        tokio::time::sleep(pause(plan.backoff, *failures)).await;
        shared.set(index, Slot::Starting);
        match start(Arc::clone(plan), io.clone()).await {
            Ok(worker) => {
                shared.set(index, Slot::Up(Arc::clone(&worker)));
                return worker;
            }
            Err(error) => {
                *failures += 1;
                tracing::warn!(%error, failures, "a worker did not start");
                shared.set(index, Slot::Down(error.retryable(true).after(pause(plan.backoff, *failures))));
            }
        }
    }
}

fn pause((least, most): (Duration, Duration), failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => least.saturating_mul(2u32.saturating_pow(n - 1)).min(most),
    }
}

/// Runs on the I/O thread.
async fn start(plan: Arc<Plan>, io: Io) -> Result<Arc<Worker>> {
    let (process, stdin, stdout) = Process::spawn(&plan.launch, &io)?;
    let witness = process.witness();
    let gone = |Ending(reason): Ending| async move { witness.report(ErrorKind::WorkerLost, &reason).await };
    let connection = Connection::open(&io, plan.hung_after, plan.credentials.clone(), stdout, stdin, gone);
    let initialized = tokio::time::timeout(plan.start_timeout, connection.initialize(next_id())).await;
    match initialized.unwrap_or_else(|_| Err(no_response("to initialize", plan.start_timeout))) {
        Ok(()) => {
            let (started, hung_after) = (Instant::now(), plan.hung_after);
            Ok(Arc::new(Worker { connection, process: Some(process), io, started, hung_after }))
        }
        Err(error) => {
            process.kill();
            let error = if error.stderr().is_empty() { error.with_stderr(process.stderr()) } else { error };
            Err(as_start_error(error))
        }
    }
}

/// A worker that is to replace one which serves: it takes over once its engine is ready.
async fn start_warm(plan: &Arc<Plan>, io: &Io) -> Result<Arc<Worker>> {
    let worker = start(Arc::clone(plan), io.clone()).await?;
    let ready = tokio::time::timeout(plan.start_timeout, worker.connection.ready()).await;
    ready.unwrap_or_else(|_| Err(no_response("that its engine is ready", plan.start_timeout))).map_err(as_start_error)?;
    Ok(worker)
}

fn no_response(what: &str, limit: Duration) -> Error {
    let message = format!(
        "no response of the worker {what} within {} s; see its stderr, or set start_timeout if it needs longer",
        limit.as_secs_f64()
    );
    Error::new(ErrorKind::Timeout, message)
}

/// Whatever broke the handshake: the worker did not start.
fn as_start_error(error: Error) -> Error {
    match error.kind() {
        ErrorKind::VersionMismatch => error,
        _ => Error::new(ErrorKind::WorkerStart, error.message()).with_stderr(error.stderr().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let backoff = (Duration::from_millis(100), Duration::from_secs(10));
        let pauses: Vec<_> = [0, 1, 2, 3, 7, 8, 9, 40, u32::MAX].map(|failures| pause(backoff, failures).as_millis()).into();
        assert_eq!(pauses, [0, 100, 200, 400, 6400, 10_000, 10_000, 10_000, 10_000]);
    }
}
