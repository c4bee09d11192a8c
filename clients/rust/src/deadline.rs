//! The client's own deadline of a call: the worker's, and a margin.
//!
//! Owns when a worker is late. Refuses to know what a late call was for.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::supervisor::Worker;
use crate::types::Deadlines;

/// The worker answers every request within its total deadline, ten minutes if the request has none. One that is late by this much
/// more has broken its promise, and the call ends here.
pub(crate) const LATE: Duration = Duration::from_secs(30);
pub(crate) const TOTAL: Duration = Duration::from_secs(600);

const CLIENT_DEADLINE: &str = "client";

pub(crate) fn total(deadlines: Option<Deadlines>) -> Duration {
    deadlines.and_then(|deadlines| deadlines.total_ms).map_or(TOTAL, Duration::from_millis).saturating_add(LATE)
}

pub(crate) async fn late<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(too_late()),
    }
}

pub(crate) fn too_late() -> Error {
    Error::new(ErrorKind::Timeout, "the worker did not answer within the deadline and 30 s more")
        .sent(true)
        .at_deadline(CLIENT_DEADLINE)
}

pub(crate) fn check_if_late(error: &Error, worker: &Arc<Worker>) {
    if error.deadline() == Some(CLIENT_DEADLINE) {
        tokio::spawn(Arc::clone(worker).check());
    }
}
