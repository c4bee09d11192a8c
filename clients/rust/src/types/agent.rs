//! What an agent's loop adds to a chat: checked responses.

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
