//! The client's own deadline of a call: the worker's, and a margin.
//!
//! Owns when a worker is late. Refuses to know what a late call was for.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::io::Io;
use crate::supervisor::Worker;
use crate::types::Deadlines;

/// The worker responds to every request within its total deadline, ten minutes if the request has none. After this margin the
/// call ends here, and the worker gets a ping to show that it is alive.
pub(crate) const LATE: Duration = Duration::from_secs(5);
pub(crate) const TOTAL: Duration = Duration::from_secs(600);

const CLIENT_DEADLINE: &str = "client";

pub(crate) fn total(deadlines: Option<Deadlines>) -> Duration {
    deadlines.and_then(|deadlines| deadlines.total_ms).map_or(TOTAL, Duration::from_millis).saturating_add(LATE)
}

pub(crate) async fn late<T>(io: &Io, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    io.timeout(limit, work).await.unwrap_or_else(|| Err(too_late()))
}

pub(crate) fn too_late() -> Error {
    let message = format!("no response from the worker within the deadline and {} s more", LATE.as_secs());
    Error::new(ErrorKind::Timeout, message).sent(true).at_deadline(CLIENT_DEADLINE)
}

pub(crate) fn check_if_late(error: &Error, worker: &Arc<Worker>) {
    if error.deadline() == Some(CLIENT_DEADLINE) {
        let checking = Arc::clone(worker);
        worker.io.spawn(async move { checking.check().await });
    }
}
