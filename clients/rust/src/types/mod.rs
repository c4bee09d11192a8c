//! The types of the wire: requests and results, with OpenAI's vocabulary as omni-bridge uses it.
//!
//! Owns the shapes; refuses to know how they travel. Nothing that the worker sends is lost: members without a name here are kept in
//! `extra`, enum values without a name in `Other`, and a [`Message`] is the JSON object itself.

use serde_json::{Map, Value};

/// A JSON object.
///
/// ```
/// use omni_bridge_client::{ChatRequest, types::Object};
///
/// let labels: Object = [("run".to_owned(), "7".into())].into_iter().collect();
/// assert_eq!(ChatRequest::new("any/model").metadata([("run", "7")]).metadata, Some(labels));
/// ```
pub type Object = Map<String, Value>;

/// An enum that is a string on the wire, and keeps the strings that it has no name for.
macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A value that this crate has no name for.
            Other(String),
        }

        impl $name {
            /// As it is spelled on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $($name::$variant => $text,)*
                    $name::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => $name::$variant,)*
                    other => $name::Other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                $name::from(text.as_str())
            }
        }

        /// Without a value: the empty string.
        impl Default for $name {
            fn default() -> Self {
                $name::Other(String::new())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                Ok($name::from(String::deserialize(deserializer)?.as_str()))
            }
        }
    };
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: impl Into<$type>) -> Self {
            self.$name = Some($name.into());
            self
        })*
    };
}

/// Setters that take a value as it is: `impl Into<u64>` would refuse a literal such as `500`, which is an `i32` there.
macro_rules! plain_setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self
        })*
    };
}

/// Setters of JSON objects: a [`Map`], or pairs such as `[("name", "value")]`.
macro_rules! object_setters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name<N: Into<String>, V: Into<Value>>(mut self, members: impl IntoIterator<Item = (N, V)>) -> Self {
            self.$name = Some(members.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
            self
        })*
    };
}

mod agent;
mod chat;
mod lifecycle;
mod message;
mod request;
mod services;
mod tool;

pub use agent::{CacheMiss, CacheUse, Ensure, Fit, FitChange, FitStrategy, Fitted, Problem, ProblemKind, Repair, Task, TaskBudget};
pub use chat::{
    Addition, Attempt, AttemptOutcome, Change, ChangeKind, ChatDelta, ChatResponse, CostSource, FinishReason, FunctionDelta,
    RateLimits, Receipt, Timing, ToolCallDelta, Usage,
};
pub use lifecycle::{EngineState, InitializeResult, Limits, ServerInfo};
pub use message::{Content, ContentPart, Message, Role};
pub use request::{ChatRequest, Deadlines, ReasoningEffort};
pub use services::{
    Budget, BudgetList, CapabilityGap, ChatCheck, ConfigReloaded, Degraded, EmbedRequest, Embeddings, EncodingFormat,
    EngineProcess, ModelInfo, ModelLimits, ModelList, ModelModalities, ModelMode, ModelPrices, ModelSummary, RankedDocument,
    Ranking, RedisState, RedisStatus, RequestCounts, RerankRequest, TokenCount, UnsupportedParameters, WorkerStatus,
};
pub use tool::{FunctionCall, FunctionTool, Tool, ToolCall, ToolChoice};

fn object<const N: usize>(members: [(&str, Value); N]) -> Object {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
