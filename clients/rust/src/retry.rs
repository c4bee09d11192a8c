//! Whether and when a failed call is tried again.
//!
//! Owns the policy. Refuses to know the call: the error alone decides whether it may be repeated.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// Tries a failed call again, if its error is retryable: [`BridgeBuilder::retry`](crate::BridgeBuilder::retry). Off unless set.
///
/// Applies to whole chats, embeddings and rankings, and to a stream until its request is sent. A stream that breaks off is an error
/// with [`partial`](Error::partial): its text was delivered.
///
/// ```
/// use std::time::Duration;
/// use omni_bridge_client::{Bridge, ErrorKind, RetryPolicy};
///
/// let policy = RetryPolicy::new(3).backoff(Duration::from_millis(200), Duration::from_secs(20)).never(ErrorKind::WorkerLost);
/// let builder = Bridge::builder().retry(policy);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryPolicy {
    retries: u32,
    backoff: (Duration, Duration),
    longest_wait: Duration,
    always: Vec<ErrorKind>,
    never: Vec<ErrorKind>,
}

impl RetryPolicy {
    /// Up to this many further tries. They follow after the `retry_after` of the error, else after pauses that double from half a
    /// second to 30 seconds.
    pub fn new(retries: u32) -> Self {
        RetryPolicy {
            retries,
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            longest_wait: Duration::from_secs(60),
            always: Vec::new(),
            never: Vec::new(),
        }
    }

    /// The pauses for errors without `retry_after`: they double from the first to the second of these.
    pub fn backoff(mut self, least: Duration, most: Duration) -> Self {
        self.backoff = (least, most);
        self
    }

    /// An error with a longer `retry_after` is returned immediately. 60 seconds unless set.
    pub fn longest_wait(mut self, limit: Duration) -> Self {
        self.longest_wait = limit;
        self
    }

    /// Also retries this kind where the error is not retryable.
    pub fn always(mut self, kind: ErrorKind) -> Self {
        self.always.push(kind);
        self
    }

    /// Never retries this kind, such as [`ErrorKind::WorkerLost`], after which the request may have been billed.
    pub fn never(mut self, kind: ErrorKind) -> Self {
        self.never.push(kind);
        self
    }

    /// The pause before try number `retry`, counted from 0; `None`: the error is final.
    pub(crate) fn pause(&self, error: &Error, retry: u32) -> Option<Duration> {
        let is_wanted = error.is_retryable() || self.always.contains(error.kind());
        if retry >= self.retries || !is_wanted || self.never.contains(error.kind()) {
            return None;
        }
        let (least, most) = self.backoff;
        let pause = error.retry_after().unwrap_or_else(|| least.saturating_mul(2u32.saturating_pow(retry)).min(most));
        (pause <= self.longest_wait).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind, retryable: bool) -> Error {
        Error::new(kind, "").retryable(retryable)
    }

    #[test]
    fn pauses_double_or_come_from_the_error_and_end_with_the_policy() {
        let policy = RetryPolicy::new(4).backoff(Duration::from_millis(100), Duration::from_millis(300));
        let limited = error(ErrorKind::RateLimited, true);
        let pauses: Vec<_> = (0..5).map(|retry| policy.pause(&limited, retry).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(300), Some(300), None]);
        let with_time = limited.clone().after(Duration::from_secs(7));
        assert_eq!(policy.pause(&with_time, 0), Some(Duration::from_secs(7)));
        assert_eq!(policy.pause(&limited.after(Duration::from_secs(61)), 0), None);
    }

    #[test]
    fn kinds_overrule_what_the_error_says() {
        let policy = RetryPolicy::new(1).always(ErrorKind::BadUpstreamResponse).never(ErrorKind::WorkerLost);
        assert!(policy.pause(&error(ErrorKind::BadUpstreamResponse, false), 0).is_some());
        assert!(policy.pause(&error(ErrorKind::WorkerLost, true), 0).is_none());
        assert!(policy.pause(&error(ErrorKind::Authentication, false), 0).is_none());
    }
}
