//! The thread on which a bridge does its I/O, so that a bridge works from any runtime and from none.
//!
//! Owns the thread, its clock, and the process groups that must not outlive the bridge. Refuses to know what its tasks do.
//!
//! A caller's future only waits on channels and on [`Io::sleep`], which any executor can poll. A `Bridge` in a static therefore
//! survives the runtime of the test that made it.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::call::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::process::kill_group;

/// How long the thread waits for killed workers to be reaped before it ends.
const REAPING: Duration = Duration::from_secs(5);

/// Stops when it is dropped. Every process group that is registered then is killed first.
pub(crate) struct IoThread {
    io: Io,
    _stop: oneshot::Sender<()>,
}

/// What a task needs of the thread. It does not keep the thread running.
#[derive(Clone)]
pub(crate) struct Io {
    runtime: Handle,
    groups: Arc<Mutex<HashSet<u32>>>,
}

impl IoThread {
    pub(crate) fn start() -> Result<IoThread> {
        let failed = |error: std::io::Error| Error::new(ErrorKind::WorkerStart, format!("no I/O thread for the bridge: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let io = Io { runtime: runtime.handle().clone(), groups: Arc::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let groups = Arc::clone(&io.groups);
        let work = move || {
            runtime.block_on(async {
                let _ = stopped.await; // an error: the sender was dropped, which is the signal
                let reaped = async {
                    while !lock(&groups).is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                let _ = tokio::time::timeout(REAPING, reaped).await;
            });
        };
        std::thread::Builder::new().name("omni-bridge-io".to_owned()).spawn(work).map_err(failed)?;
        Ok(IoThread { io, _stop: stop })
    }

    pub(crate) fn io(&self) -> &Io {
        &self.io
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        for group in lock(&self.io.groups).iter() {
            kill_group(*group);
        }
    }
}

impl Io {
    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(work)
    }

    /// For what is polled on a caller's thread and needs this thread's runtime.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// By the thread's clock, polled from anywhere.
    pub(crate) fn sleep(&self, time: Duration) -> Sleep {
        let _context = self.runtime.enter();
        tokio::time::sleep(time)
    }

    /// `None`: `work` took longer.
    pub(crate) async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut sleep) = (pin!(work), pin!(self.sleep(limit)));
        std::future::poll_fn(|context| match work.as_mut().poll(context) {
            std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
            std::task::Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
        })
        .await
    }

    /// The group is killed with the bridge, unless [`Io::forget_group`] comes first.
    pub(crate) fn register_group(&self, id: u32) {
        lock(&self.groups).insert(id);
    }

    pub(crate) fn forget_group(&self, id: u32) {
        lock(&self.groups).remove(&id);
    }
}
