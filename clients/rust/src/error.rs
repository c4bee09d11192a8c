//! What can go wrong, in one type.
//!
//! Owns the vocabulary of error kinds: the worker's own table and what only a client can see. Gives facts, and leaves the decision
//! whether to try again to its caller.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::{Budget, ChatDelta, FunctionCall, Receipt, TaskBudget, ToolCall};

/// `Result` with this crate's [`Error`].
///
/// ```
/// use omni_bridge_client::{Bridge, ChatRequest, Result};
///
/// async fn respond(bridge: &Bridge, question: &str) -> Result<String> {
///     let response = bridge.chat(ChatRequest::new("openai/gpt-4o-mini").user(question)).await?;
///     Ok(response.text().to_owned())
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($(#[$doc:meta] $variant:ident = $name:literal,)*) => {
        /// The kind of an error, as far as a program needs to distinguish them.
        ///
        /// The kinds up to [`Cancelled`](ErrorKind::Cancelled) are the worker's (`error.data.kind`); the rest are this crate's.
        ///
        /// ```
        /// use omni_bridge_client::ErrorKind;
        ///
        /// assert_eq!(ErrorKind::RateLimited.as_str(), "rate_limited");
        /// assert_eq!(ErrorKind::from("rate_limited"), ErrorKind::RateLimited);
        /// assert_eq!(ErrorKind::from("new_kind"), ErrorKind::Other("new_kind".into())); // of a newer worker
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $(#[$doc] $variant,)*
            /// A kind that a newer worker has and this crate does not know.
            Other(String),
        }

        impl ErrorKind {
            /// Every kind that has a name here.
            pub const NAMED: &[ErrorKind] = &[$(ErrorKind::$variant),*];

            /// As it is spelled in `error.data.kind`.
            pub fn as_str(&self) -> &str {
                match self {
                    $(ErrorKind::$variant => $name,)*
                    ErrorKind::Other(name) => name,
                }
            }
        }

        impl From<&str> for ErrorKind {
            fn from(name: &str) -> Self {
                match name {
                    $($name => ErrorKind::$variant,)*
                    other => ErrorKind::Other(other.to_owned()),
                }
            }
        }
    };
}

kinds! {
    /// The worker could not read a line as JSON.
    ParseError = "parse_error",
    /// JSON, but not a request; or a line over the limit.
    InvalidMessage = "invalid_message",
    /// The worker has no such method; it may be older than this crate.
    MethodNotFound = "method_not_found",
    /// A missing, unknown or refused member of the request.
    InvalidRequest = "invalid_request",
    /// An MCP client requested a revision that the worker does not support; this crate never does.
    UnsupportedVersion = "unsupported_version",
    /// A bug in the bridge; its log has the details.
    Internal = "internal",
    /// 401 from the provider, or no key for it.
    Authentication = "authentication",
    /// 403 from the provider.
    Permission = "permission",
    /// No such model, provider or deployment.
    ModelNotFound = "model_not_found",
    /// 400, 413 or 422 from the provider.
    RejectedByProvider = "rejected_by_provider",
    /// The conversation is longer than the model's context.
    ContextLengthExceeded = "context_length_exceeded",
    /// The provider's content policy refused the request.
    ContentPolicy = "content_policy",
    /// 429 or a usage limit; see [`Error::retry_after`].
    RateLimited = "rate_limited",
    /// 402, or a budget of the worker's config is used up.
    BudgetExceeded = "budget_exceeded",
    /// A deadline of the request or of the provider; see [`Error::deadline`].
    Timeout = "timeout",
    /// Refused, reset, DNS or 5xx.
    ProviderUnavailable = "provider_unavailable",
    /// The provider's response is unusable: no choices, or tool arguments that are not JSON.
    BadUpstreamResponse = "bad_upstream_response",
    /// More requests in flight than the worker takes.
    Overloaded = "overloaded",
    /// The worker is about to exit.
    ShuttingDown = "shutting_down",
    /// The provider broke off after the first delta; see [`Error::partial`].
    StreamInterrupted = "stream_interrupted",
    /// The worker's engine process crashed or hung with this call in flight; see [`Error::sent_upstream`] and [`Error::partial`].
    EngineLost = "engine_lost",
    /// The cassette that is replayed does not have the request; the message names the members that differ from the nearest one.
    CassetteMiss = "cassette_miss",
    /// The request was cancelled; see [`Error::upstream_closed`].
    Cancelled = "cancelled",
    /// There is no such command to start.
    WorkerNotFound = "worker_not_found",
    /// The worker did not come up; see [`Error::stderr`].
    WorkerStart = "worker_start",
    /// The worker ended, or stopped making sense, with this call in flight; see [`Error::was_sent`].
    WorkerLost = "worker_lost",
    /// The worker speaks another version of the protocol.
    VersionMismatch = "version_mismatch",
    /// The worker's response does not follow the protocol.
    Protocol = "protocol",
    /// [`Bridge::shutdown`](crate::Bridge::shutdown) was called, or the connection's other end is gone for good.
    Closed = "closed",
    /// A stream was read so slowly that 64 MiB of its text had gathered here; it was cancelled.
    SlowConsumer = "slow_consumer",
    /// Not an error of the bridge: tool arguments or a config that don't fit the type they were parsed into.
    Parse = "parse",
    /// A tool run reached its limit of turns.
    TurnLimit = "turn_limit",
    /// An MCP server did not list its tools.
    Tool = "tool",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The content received before a response was interrupted.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::error("stream_interrupted".into()).with("partial", json!({"content": "Once upon"}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let error = bridge.chat(ChatRequest::new("any/model").user("A story, please")).await.unwrap_err();
/// let partial = error.partial().expect("a part was received");
/// assert_eq!(partial.content.as_deref(), Some("Once upon"));
/// assert!(partial.tool_calls.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Partial {
    /// The text so far.
    pub content: Option<String>,
    /// The tool calls so far. Their arguments may be cut short, so they may not be JSON.
    #[serde(default)]
    pub tool_calls: Vec<ToolCall>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The recorded request that is most similar to one that a cassette does not have.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let nearest = json!({"exchange": 2, "differs": ["messages[0].content"]});
/// let bridge = Mock::new().reply(Reply::error("cassette_miss".into()).with("nearest", nearest)).spawn().await?;
/// let error = bridge.chat(ChatRequest::new("any/model").user("hello")).await.unwrap_err();
/// let nearest = error.nearest().expect("the cassette has a chat");
/// assert_eq!((nearest.exchange, nearest.differs[0].as_str()), (2, "messages[0].content"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NearestRequest {
    /// Its position in the cassette, from 1.
    pub exchange: u64,
    /// The paths of the members that differ.
    #[serde(default)]
    pub differs: Vec<String>,
    /// In its canonical form; `None` if it is longer than 64 KiB.
    #[serde(default)]
    pub request: Option<Value>,
}

/// `error.data` on the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorData {
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) retryable: bool,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) provider: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partial: Option<Partial>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream_closed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent_upstream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receipt: Option<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<Budget>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nearest: Option<NearestRequest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<TaskBudget>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) earlier_cost_usd: Option<f64>,
    #[serde(flatten)]
    pub(crate) extra: Map<String, Value>,
}

/// `error` on the wire. `data` is read leniently: an error with missing members is better than none.
#[derive(Debug, Deserialize)]
pub(crate) struct WireError {
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) data: Value,
}

/// Any error of this crate or of a worker.
///
/// Cheap to move. Never contains a prompt, a key or a response, except for [`partial`](Error::partial).
///
/// ```
/// use std::time::Duration;
/// use omni_bridge_client::{ChatRequest, ErrorKind, mock::{Mock, Reply}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let limited = Reply::error(ErrorKind::RateLimited).retry_after(Duration::from_secs(2));
/// let bridge = Mock::new().reply(limited).spawn().await?;
/// let error = bridge.chat(ChatRequest::new("any/model").user("hi")).await.unwrap_err();
/// assert_eq!(error.kind(), &ErrorKind::RateLimited);
/// assert!(error.is_retryable() && error.was_sent());
/// assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    code: Option<i64>,
    message: String,
    sent: bool,
    stderr: Vec<String>,
    data: ErrorData,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            code: None,
            message: message.into(),
            sent: false,
            stderr: Vec::new(),
            data: ErrorData::default(),
        }))
    }

    pub(crate) fn from_wire(wire: WireError) -> Self {
        let data = match serde_json::from_value::<ErrorData>(wire.data.clone()) {
            Ok(data) => data,
            Err(_) => match wire.data {
                Value::Object(extra) => ErrorData {
                    kind: extra.get("kind").and_then(Value::as_str).map(str::to_owned),
                    retryable: extra.get("retryable").and_then(Value::as_bool).unwrap_or_default(),
                    extra,
                    ..ErrorData::default()
                },
                _ => ErrorData::default(),
            },
        };
        let kind = data.kind.as_deref().map_or_else(|| kind_of_code(wire.code), ErrorKind::from);
        Error(Box::new(Inner { kind, code: Some(wire.code), message: wire.message, sent: true, stderr: Vec::new(), data }))
    }

    pub(crate) fn sent(mut self, sent: bool) -> Self {
        self.0.sent = sent;
        self
    }

    pub(crate) fn retryable(mut self, retryable: bool) -> Self {
        self.0.data.retryable = retryable;
        self
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.0.data.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    pub(crate) fn at_deadline(mut self, name: &str) -> Self {
        self.0.data.deadline = Some(name.to_owned());
        self
    }

    pub(crate) fn with_stderr(mut self, lines: Vec<String>) -> Self {
        self.0.stderr = lines;
        self
    }

    /// Adds what had been received, unless the worker's own account of it is there.
    pub(crate) fn with_partial(mut self, received: ChatDelta) -> Self {
        if self.0.data.partial.is_none() && received != ChatDelta::default() {
            let tool_calls = received.tool_calls.unwrap_or_default().into_iter().map(|call| ToolCall {
                id: call.id.unwrap_or_default(),
                r#type: call.r#type.unwrap_or_else(|| "function".to_owned()),
                function: FunctionCall {
                    name: call.function.name.unwrap_or_default(),
                    arguments: call.function.arguments.unwrap_or_default(),
                    ..FunctionCall::default()
                },
                ..ToolCall::default()
            });
            let tool_calls = tool_calls.collect();
            self.0.data.partial = Some(Partial { content: received.content, tool_calls, ..Partial::default() });
        }
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// One sentence for the user.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// JSON-RPC's error code, if the worker sent one.
    #[must_use]
    pub fn code(&self) -> Option<i64> {
        self.0.code
    }

    /// Whether the identical call may succeed later. Waiting for [`retry_after`](Error::retry_after), and giving up, is yours.
    ///
    /// A call that was in flight when its worker was lost is retryable if no delta of it had been received; it may have been
    /// billed nevertheless if [`was_sent`](Error::was_sent).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.data.retryable
    }

    /// The time to wait before the next try, if the provider (or, for a worker that is down, this crate) gives one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.data.retry_after_ms.map(Duration::from_millis)
    }

    /// Whether any byte of the request may have reached the worker. A request that was not sent has cost nothing.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.0.sent
    }

    /// The content received before the response was interrupted.
    #[must_use]
    pub fn partial(&self) -> Option<&Partial> {
        self.0.data.partial.as_ref()
    }

    /// After a cancel: whether the connection to the provider is known to be closed.
    #[must_use]
    pub fn upstream_closed(&self) -> Option<bool> {
        self.0.data.upstream_closed
    }

    /// After [`ErrorKind::EngineLost`]: whether the request was sent to the provider; `None` where that is not known.
    #[must_use]
    pub fn sent_upstream(&self) -> Option<bool> {
        self.0.data.sent_upstream
    }

    /// After [`ErrorKind::BudgetExceeded`] by the request's task: what it has spent, and the estimate of the rejected request.
    #[must_use]
    pub fn task(&self) -> Option<&TaskBudget> {
        self.0.data.task.as_ref()
    }

    /// With [`ChatRequest::ensure`](crate::ChatRequest::ensure): the cost of the calls before the one that failed.
    #[must_use]
    pub fn earlier_cost_usd(&self) -> Option<f64> {
        self.0.data.earlier_cost_usd
    }

    /// After [`ErrorKind::BudgetExceeded`] by a budget of the config: the limit that is full.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.0.data.budget.as_ref()
    }

    /// After [`ErrorKind::CassetteMiss`]: the most similar request of the cassette, if it has one of the method.
    #[must_use]
    pub fn nearest(&self) -> Option<&NearestRequest> {
        self.0.data.nearest.as_ref()
    }

    /// After a timeout: which deadline it was.
    #[must_use]
    pub fn deadline(&self) -> Option<&str> {
        self.0.data.deadline.as_deref()
    }

    /// The attempts of the request and how each failed.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.0.data.receipt.as_ref()
    }

    /// The provider that failed.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.0.data.provider.as_deref()
    }

    /// The model that failed.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.0.data.model.as_deref()
    }

    /// The provider's HTTP status.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.data.status
    }

    /// Members of `error.data` that this crate has no name for.
    #[must_use]
    pub fn extra(&self) -> &Map<String, Value> {
        &self.0.data.extra
    }

    /// The last lines that a worker wrote to stderr before it failed to start or was lost; empty for every other error.
    #[must_use]
    pub fn stderr(&self) -> &[String] {
        &self.0.stderr
    }
}

/// For an error without `data.kind`, which only another program than omni-bridge sends.
fn kind_of_code(code: i64) -> ErrorKind {
    match code {
        -32700 => ErrorKind::ParseError,
        -32600 => ErrorKind::InvalidMessage,
        -32601 => ErrorKind::MethodNotFound,
        -32602 => ErrorKind::InvalidRequest,
        -32603 => ErrorKind::Internal,
        -32800 => ErrorKind::Cancelled,
        other => ErrorKind::Other(format!("code {other}")),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.message)?;
        for line in &self.0.stderr {
            write!(f, "\n  stderr: {line}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("retryable", &self.0.data.retryable)
            .field("sent", &self.0.sent)
            .field("stderr", &self.0.stderr)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn from(value: Value) -> Error {
        Error::from_wire(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn an_error_tells_what_the_worker_said() {
        let error = from(json!({"code": 1007, "message": "slow down", "data": {
            "kind": "rate_limited", "retryable": true, "retry_after_ms": 1500, "provider": "openai", "model": "m", "status": 429}}));
        assert_eq!(error.kind(), &ErrorKind::RateLimited);
        assert!(error.is_retryable() && error.was_sent());
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        assert_eq!((error.provider(), error.model(), error.status()), (Some("openai"), Some("m"), Some(429)));
        assert_eq!(error.to_string(), "rate_limited: slow down");
    }

    #[test]
    fn an_unknown_kind_and_unknown_members_are_kept() {
        let error = from(json!({"code": 1099, "message": "", "data": {"kind": "too_hot", "retryable": true, "degrees": 50}}));
        assert_eq!(error.kind(), &ErrorKind::Other("too_hot".into()));
        assert_eq!(error.kind().as_str(), "too_hot");
        assert_eq!(error.extra()["degrees"], 50);
    }

    #[test]
    fn data_of_a_wrong_shape_still_yields_its_kind() {
        let error =
            from(json!({"code": 1007, "message": "", "data": {"kind": "rate_limited", "retryable": true, "status": "429"}}));
        assert_eq!(error.kind(), &ErrorKind::RateLimited);
        assert!(error.is_retryable());
    }

    #[test]
    fn without_data_the_code_tells_the_kind() {
        assert_eq!(from(json!({"code": -32601, "message": ""})).kind(), &ErrorKind::MethodNotFound);
        assert_eq!(from(json!({"code": 7, "data": "?"})).kind(), &ErrorKind::Other("code 7".into()));
    }

    #[test]
    fn every_named_kind_is_read_back_from_its_name() {
        for kind in ErrorKind::NAMED {
            assert_eq!(&ErrorKind::from(kind.as_str()), kind);
        }
    }
}
