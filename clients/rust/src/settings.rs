//! The worker's own settings as methods of the builder; each is a flag of `omni-bridge --stdio`.
//!
//! Owns their names and types. Refuses to check their values: the worker does, and names the one that is wrong.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::builder::BridgeBuilder;

open_enum! {
    /// The level of the worker's log.
    ///
    /// ```
    /// use omni_bridge_client::{Bridge, LogLevel};
    ///
    /// let builder = Bridge::builder().log_level(LogLevel::Info); // or .log_level("info")
    /// assert_eq!(LogLevel::Info.as_str(), "info");
    /// ```
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// A line a request.
        Info = "info",
        /// What an operator should look at; the default.
        Warning = "warning",
        /// Failures of the bridge.
        Error = "error",
    }
}

open_enum! {
    /// The path of chats through the worker.
    ///
    /// ```
    /// use omni_bridge_client::{Bridge, ChatEngine};
    ///
    /// let builder = Bridge::builder().engine(ChatEngine::Litellm); // or .engine("litellm")
    /// assert_eq!(ChatEngine::Litellm.as_str(), "litellm");
    /// ```
    ChatEngine {
        /// The direct path where it is proven equal, else LiteLLM's own; the default.
        Auto = "auto",
        /// The direct path alone.
        Direct = "direct",
        /// LiteLLM's own path alone.
        Litellm = "litellm",
    }
}

open_enum! {
    /// What of the messages the worker's trace file contains.
    ///
    /// ```
    /// use omni_bridge_client::{Bridge, TraceContent};
    ///
    /// let builder = Bridge::builder().trace("run.trace").trace_content(TraceContent::Full);
    /// assert_eq!(TraceContent::Full.as_str(), "full");
    /// ```
    TraceContent {
        /// Only lengths; the default.
        None = "none",
        /// The messages.
        Full = "full",
    }
}

/// A limit of a budget: [`BridgeBuilder::budgets`].
///
/// ```
/// use omni_bridge_client::{Bridge, BudgetLimit};
///
/// let builder = Bridge::builder().budgets([BudgetLimit::usd("*", 10.0).window("1d"), BudgetLimit::tokens("*/*", 3_000_000)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
pub struct BudgetLimit {
    /// The path; `*` is any one name, `/` all requests.
    pub path: String,
    /// US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_usd: Option<f64>,
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The length of the window after which the count begins again, such as `1d`; none: it never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
}

impl BudgetLimit {
    /// A limit of US dollars.
    pub fn usd(path: impl Into<String>, max_usd: f64) -> Self {
        BudgetLimit { path: path.into(), max_usd: Some(max_usd), ..BudgetLimit::default() }
    }

    /// A limit of tokens.
    pub fn tokens(path: impl Into<String>, max_tokens: u64) -> Self {
        BudgetLimit { path: path.into(), max_tokens: Some(max_tokens), ..BudgetLimit::default() }
    }

    /// The length of the window: `90s`, `15m`, `1h`, `30d`.
    pub fn window(mut self, length: impl Into<String>) -> Self {
        self.window = Some(length.into());
        self
    }
}

impl BridgeBuilder {
    /// One engine process for each core of the machine: [`engines`](BridgeBuilder::engines) without a number.
    pub fn engines_auto(self) -> Self {
        self.setting("engines", "auto")
    }
}

macro_rules! flags {
    ($($(#[$doc:meta])* $method:ident($($argument:ident: $type:ty)?) $name:literal => $value:expr;)*) => {
        impl BridgeBuilder {
            /// The worker's settings that have a method here, by their names in its config.
            pub const SETTINGS: &[&str] = &[$($name),*];

            $($(#[$doc])*
            pub fn $method(self, $($argument: $type)?) -> Self {
                let value: OsString = $value;
                self.setting($name, value)
            })*
        }
    };
}

fn milliseconds(time: Duration) -> OsString {
    time.as_millis().to_string().into()
}

fn names(names: impl IntoIterator<Item = impl Into<String>>) -> OsString {
    let names: Vec<String> = names.into_iter().map(Into::into).collect();
    json!(names).to_string().into()
}

flags! {
    /// The longest line that the worker reads, in bytes.
    max_message_bytes(bytes: usize) "max_message_bytes" => bytes.to_string().into();
    /// The most requests in flight at a worker; the bridge holds further ones back.
    max_in_flight(requests: usize) "max_in_flight" => requests.to_string().into();
    /// The time that SIGTERM leaves to requests in flight.
    grace(time: Duration) "grace_seconds" => time.as_secs_f64().to_string().into();
    /// The engine processes of a worker, which run its requests: 1 unless set, 0 for a worker of one process. More use more cores
    /// at 10 to 30 MB each, where another worker of the pool takes 200 MB; a config is reloaded only with at least one.
    engines(count: usize) "engines" => count.to_string().into();
    /// The time without a sign of life after which an engine process is replaced.
    engine_hang(time: Duration) "engine_hang_seconds" => time.as_secs_f64().to_string().into();
    /// The resident memory, in MiB, beyond which an engine process is replaced.
    engine_max_mib(size: u32) "engine_max_mib" => size.to_string().into();
    /// The number of requests after which an engine process is replaced.
    engine_max_requests(requests: usize) "engine_max_requests" => requests.to_string().into();
    /// The deadline of a request that has none.
    deadline_total(limit: Duration) "deadline_total_ms" => milliseconds(limit);
    /// The deadline for a stream's first delta, for a request that has none.
    deadline_first_token(limit: Duration) "deadline_first_token_ms" => milliseconds(limit);
    /// The deadline for the silence between two deltas, for a request that has none.
    deadline_idle(limit: Duration) "deadline_idle_ms" => milliseconds(limit);
    /// The members that requests may have in `provider_params`.
    allow_provider_params(params: impl IntoIterator<Item = impl Into<String>>) "provider_params" => names(params);
    /// The URLs of images and files that requests may contain, in the form of the config's `image_policy`.
    image_policy(policy: Value) "image_policy" => policy.to_string().into();
    /// The providers on the worker's machine that requests may reach without a base URL, such as `ollama`.
    local_services(providers: impl IntoIterator<Item = impl Into<String>>) "local_services" => names(providers);
    /// The limits of budgets; [`ChatRequest::budget`](crate::ChatRequest::budget) names the path that a request counts against.
    budgets(limits: impl IntoIterator<Item = BudgetLimit>) "budgets" => json!(limits.into_iter().collect::<Vec<_>>()).to_string().into();
    /// The path of chats through the worker.
    engine(path: impl Into<ChatEngine>) "engine" => path.into().as_str().into();
    /// The level of the worker's log, which arrives as `tracing` events with the target `omni_bridge::worker`.
    log_level(level: impl Into<LogLevel>) "log_level" => level.into().as_str().into();
    /// Keeps the results of requests with an [`idempotency_key`](crate::ChatRequest::idempotency_key) in this SQLite file, over a crash.
    idempotency_journal(file: impl Into<PathBuf>) "idempotency_journal" => file.into().into();
    /// Appends each exchange with a model to this cassette.
    record(file: impl Into<PathBuf>) "record" => file.into().into();
    /// Serves requests from this cassette, without LiteLLM, network and key.
    replay(file: impl Into<PathBuf>) "replay" => file.into().into();
    /// Sends a request that is not in the cassette to the provider, and appends the exchange, instead of an error.
    record_missing() "replay_miss" => "record".into();
    /// Repeats the recorded pauses of a cassette.
    replay_in_real_time() "replay_timing" => "real".into();
    /// What two requests may differ in to be the same: `ids`, `dates`, and members by their path.
    match_ignore(what: impl IntoIterator<Item = impl Into<String>>) "match_ignore" => names(what);
    /// A file of fault cards: the requests that a card names meet its fault, on any model. See `docs/resilience.md`.
    faults(file: impl Into<PathBuf>) "faults" => file.into().into();
    /// Appends every message in both directions to this file; `omni-bridge trace` shows it.
    trace(file: impl Into<PathBuf>) "trace" => file.into().into();
    /// What of the messages the trace file contains.
    trace_content(content: impl Into<TraceContent>) "trace_content" => content.into().as_str().into();
}
