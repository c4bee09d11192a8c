//! What an agent's loop adds to a chat: checked responses, task budgets.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Object;

open_enum! {
    /// What kind of [`Problem`] a response has.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensure {
    /// The most calls: 1 to 10.
    pub attempts: u32,
}

/// The task that a request belongs to, with the limits of all its requests together.
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
