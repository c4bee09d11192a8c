//! What an agent's loop adds to a chat: checked responses, task budgets, a history that fits, prompt caching.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Message, Object};

open_enum! {
    /// What kind of [`Problem`] a response has.
    ///
    /// ```
    /// use omni_bridge_client::types::ProblemKind;
    ///
    /// assert_eq!(ProblemKind::from("unknown_tool"), ProblemKind::UnknownTool);
    /// assert_eq!(ProblemKind::Truncated.as_str(), "truncated");
    /// ```
    ProblemKind {
        /// It does not fit the JSON Schema.
        Schema = "schema",
        /// The request has no such tool.
        UnknownTool = "unknown_tool",
        /// It is not JSON.
        NotJson = "not_json",
        /// It was cut off at the limit of tokens.
        Truncated = "truncated",
        /// A part of it could not be checked.
        Unchecked = "unchecked",
    }
}

/// A place at which a tool call, or the content, does not fit the request.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("{}").with("problems", json!([{"kind": "schema", "path": "city", "reason": "is missing"}]));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello").response_format(json!({"type": "json_object"}))).await?;
/// for problem in &response.problems {
///     assert_eq!((problem.path.as_str(), problem.reason.as_str()), ("city", "is missing"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// Where, such as `items[2].name`; empty for the whole.
    pub path: String,
    /// The reason, in words that a model understands.
    pub reason: String,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A change that the worker made to what the model wrote, because of [`ChatRequest::repair_json`](super::ChatRequest::repair_json).
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("[1]").with("repaired", json!([{"path": "", "change": "a trailing comma removed"}]));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello").repair_json()).await?;
/// assert_eq!((response.text(), response.repaired[0].change.as_str()), ("[1]", "a trailing comma removed"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Repair {
    /// Where, such as `items[2].name`; empty for the whole.
    pub path: String,
    /// What was done.
    pub change: String,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// How often a model is called until its response fits.
///
/// ```
/// use omni_bridge_client::{ChatRequest, types::Ensure};
///
/// let request = ChatRequest::new("openai/gpt-4o-mini").user("A city as JSON, please").ensure(3);
/// assert_eq!(request.ensure, Some(Ensure { attempts: 3 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensure {
    /// The most calls: 1 to 10.
    pub attempts: u32,
}

/// The task that a request belongs to, with the limits of all its requests together.
///
/// ```
/// use omni_bridge_client::{ChatRequest, types::Task};
///
/// let task = Task::new("report-7").max_usd(0.5).max_requests(20);
/// let request = ChatRequest::new("openai/gpt-4o-mini").user("hi").task(task.clone()); // in each request of the task
/// assert_eq!(request.task, Some(task));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Task {
    /// A name of yours.
    pub id: String,
    /// US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_usd: Option<f64>,
    /// Tokens of input and output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Calls of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u64>,
}

impl Task {
    /// A task without limits yet. A worker keeps tasks itself: requests of one task belong to a [`Bridge`](crate::Bridge) with one
    /// worker, which is the default.
    pub fn new(id: impl Into<String>) -> Self {
        Task { id: id.into(), ..Task::default() }
    }

    plain_setters! {
        /// US dollars.
        max_usd: f64,
        /// Tokens of input and output.
        max_tokens: u64,
        /// Calls of models.
        max_requests: u64,
    }
}

/// What a task has spent and reserved. In [`Error::task`](crate::Error::task) also the estimate of the rejected request.
///
/// ```
/// use omni_bridge_client::mock::Mock;
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().result("tasks/get", json!({"id": "report-7", "max_usd": 0.5, "spent_usd": 0.25})).spawn().await?;
/// let budget = bridge.task("report-7").await?;
/// assert_eq!((budget.max_usd, budget.spent_usd), (Some(0.5), 0.25));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TaskBudget {
    /// Its name.
    pub id: String,
    /// The limit, if there is one.
    pub max_usd: Option<f64>,
    /// Spent US dollars.
    pub spent_usd: f64,
    /// Reserved for requests in flight.
    pub reserved_usd: f64,
    /// The limit, if there is one.
    pub max_tokens: Option<u64>,
    /// Spent tokens.
    pub spent_tokens: u64,
    /// Reserved for requests in flight.
    pub reserved_tokens: u64,
    /// The limit, if there is one.
    pub max_requests: Option<u64>,
    /// Calls so far.
    pub spent_requests: u64,
    /// Calls in flight.
    pub reserved_requests: u64,
    /// The most that the rejected request may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate_usd: Option<f64>,
    /// The most tokens that the rejected request may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate_tokens: Option<u64>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

open_enum! {
    /// What is dropped or shortened first, so that a history fits.
    ///
    /// ```
    /// use omni_bridge_client::{ChatRequest, types::{Fit, FitStrategy}};
    ///
    /// let request = ChatRequest::new("openai/gpt-4o-mini").user("hi").fit(FitStrategy::OldestTurns);
    /// assert_eq!(request.fit, Some(Fit::new(FitStrategy::OldestTurns)));
    /// ```
    FitStrategy {
        /// Old tool results are shortened, then turns are dropped.
        OldestToolResults = "oldest_tool_results",
        /// Old turns are dropped, then tool results are shortened.
        OldestTurns = "oldest_turns",
    }
}

/// How a history is made to fit before it is sent.
///
/// ```
/// use omni_bridge_client::{ChatRequest, types::{Fit, FitStrategy}};
///
/// let fit = Fit::new(FitStrategy::OldestToolResults).max_input_tokens(8_000);
/// let request = ChatRequest::new("openai/gpt-4o-mini").user("hi").fit(fit);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "WireFit", into = "WireFit")]
#[non_exhaustive]
pub struct Fit {
    /// What goes first.
    pub strategy: FitStrategy,
    /// The limit; the model's own otherwise.
    pub max_input_tokens: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WireFit {
    Strategy(FitStrategy),
    Limited {
        #[serde(default = "WireFit::first")]
        strategy: FitStrategy,
        max_input_tokens: Option<u64>,
    },
}

impl WireFit {
    fn first() -> FitStrategy {
        FitStrategy::OldestToolResults
    }
}

impl From<WireFit> for Fit {
    fn from(fit: WireFit) -> Self {
        match fit {
            WireFit::Strategy(strategy) => Fit::new(strategy),
            WireFit::Limited { strategy, max_input_tokens } => Fit { strategy, max_input_tokens },
        }
    }
}

impl From<Fit> for WireFit {
    fn from(fit: Fit) -> Self {
        match fit.max_input_tokens {
            None => WireFit::Strategy(fit.strategy),
            max_input_tokens => WireFit::Limited { strategy: fit.strategy, max_input_tokens },
        }
    }
}

impl Fit {
    /// To the model's own limit.
    #[must_use]
    pub fn new(strategy: FitStrategy) -> Self {
        Fit { strategy, max_input_tokens: None }
    }

    plain_setters! {
        /// To this limit.
        max_input_tokens: u64,
    }
}

impl From<FitStrategy> for Fit {
    fn from(strategy: FitStrategy) -> Self {
        Fit::new(strategy)
    }
}

/// What was done to a history, in [`Receipt::fit`](super::Receipt::fit); with the messages, the result of
/// [`Bridge::fit`](crate::Bridge::fit).
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::Mock};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let result = json!({"input_tokens": 900, "dropped": [{"index": 1, "role": "user", "change": "dropped", "tokens": 300}]});
/// let bridge = Mock::new().result("tokens/fit", result).spawn().await?;
/// let fitted = bridge.fit(&ChatRequest::new("any/model").user("hello")).await?;
/// assert_eq!((fitted.input_tokens, fitted.dropped.len()), (900, 1));
/// let request = ChatRequest::new("any/model").messages(fitted.messages);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Fitted {
    /// Those that fit; empty in a receipt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// The messages that were dropped or shortened.
    pub dropped: Vec<FitChange>,
    /// Their tokens, afterwards.
    pub input_tokens: u64,
    /// The limit.
    pub max_input_tokens: u64,
    /// What counted them.
    pub tokenizer: String,
    /// Whether the provider will count the same.
    pub exact: bool,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A message that was dropped or shortened.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::Mock};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let result = json!({"input_tokens": 900, "dropped": [{"index": 1, "role": "user", "change": "dropped", "tokens": 300}]});
/// let bridge = Mock::new().result("tokens/fit", result).spawn().await?;
/// let fitted = bridge.fit(&ChatRequest::new("any/model").user("hello")).await?;
/// let change = &fitted.dropped[0];
/// assert_eq!((change.index, change.change.as_str(), change.tokens), (1, "dropped", 300));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FitChange {
    /// Its index in the request.
    pub index: usize,
    /// Its role.
    pub role: String,
    /// `dropped` or `shortened`.
    pub change: String,
    /// The tokens that this saved.
    pub tokens: u64,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// What the provider's prompt cache brought, with [`ChatRequest::cache_auto`](super::ChatRequest::cache_auto).
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("hi").with("cache", json!({"read_tokens": 2048, "saved_usd": 0.004}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello").cache_auto()).await?;
/// let cache = response.cache.expect("the provider caches prompts");
/// assert_eq!((cache.read_tokens, cache.saved_usd), (Some(2048), Some(0.004)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CacheUse {
    /// Input tokens read from the cache.
    pub read_tokens: Option<u64>,
    /// Input tokens written to the cache.
    pub written_tokens: Option<u64>,
    /// US dollars; negative for a turn that writes more than it reads.
    pub saved_usd: Option<f64>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// Why a turn read nothing from the cache.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("hi").with("receipt", json!({"cache": {"missed": "the tools changed"}}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello").cache_auto()).await?;
/// let missed = response.receipt.and_then(|receipt| receipt.cache).and_then(|cache| cache.missed);
/// assert_eq!(missed.as_deref(), Some("the tools changed"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CacheMiss {
    /// The reason, such as `the tools changed`; `None` if something was read.
    pub missed: Option<String>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A list that the worker leaves out when it is empty, and that Python's own `ChatResult` has as `null` then.
pub(super) fn none_if_null<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
