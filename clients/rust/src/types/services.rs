//! The methods other than `chat`: models, tokens, embeddings, rankings, the worker's state.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{CostSource, Deadlines, EngineState, Object, Receipt, Task, Usage};
use crate::error::{Error, ErrorKind, Result};

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            /// What a newer worker adds.
            #[serde(flatten)]
            pub extra: Object,
        })*
    };
}

open_enum! {
    /// The purpose of a model.
    ModelMode {
        /// Chats.
        Chat = "chat",
        /// Embeddings.
        Embedding = "embedding",
        /// Rankings.
        Rerank = "rerank",
    }
}

open_enum! {
    /// What happens to parameters that a model does not take.
    UnsupportedParameters {
        /// The request fails.
        Rejected = "rejected",
        /// The request is sent without them.
        Dropped = "dropped",
    }
}

open_enum! {
    /// The connection of a worker to its Redis.
    RedisStatus {
        /// None is configured.
        None = "none",
        /// It is being connected.
        Connecting = "connecting",
        /// It is connected.
        Connected = "connected",
        /// The connection is lost, and is tried again.
        Lost = "lost",
        /// The worker's installation has no Redis client.
        NotInstalled = "not_installed",
    }
}

open_enum! {
    /// The form of embedding vectors.
    EncodingFormat {
        /// Lists of numbers; the default.
        Float = "float",
        /// Base64 text.
        Base64 = "base64",
    }
}

answers! {
    /// A page of models.
    ModelList {
        /// The models of this page.
        models: Vec<ModelSummary>,
        /// What to ask with for the next page.
        #[serde(rename = "nextCursor")]
        next_cursor: Option<String>,
    }

    /// A model in a list.
    ModelSummary {
        /// The name for [`ChatRequest::model`](super::ChatRequest::model).
        model: String,
        /// Its provider.
        provider: Option<String>,
        /// `chat`, `embedding` or another mode.
        mode: Option<ModelMode>,
        /// Whether the worker has a key for it; `None` if that is unknown.
        key_present: Option<bool>,
    }

    /// The facts about a model.
    ModelInfo {
        /// The name for [`ChatRequest::model`](super::ChatRequest::model).
        model: String,
        /// Its provider.
        provider: Option<String>,
        /// `chat`, `embedding` or another mode.
        mode: Option<ModelMode>,
        /// Whether the worker has a key for it; `None` if that is unknown.
        key_present: Option<bool>,
        /// The ids of its deployments in the worker's config.
        deployments: Vec<String>,
        /// The most tokens of its input and output.
        limits: ModelLimits,
        /// US dollars per token.
        prices: ModelPrices,
        /// The kinds of its input and output, such as `text` and `image`.
        modalities: ModelModalities,
        /// Its abilities: `tools`, `reasoning`, `vision` and so on; `None` if that is unknown.
        supports: BTreeMap<String, Option<bool>>,
        /// OpenAI's parameters that it supports.
        parameters: Option<Vec<String>>,
        /// The treatment of the others: `rejected` or `dropped`.
        unsupported_parameters: UnsupportedParameters,
        /// The day on which its provider ends it.
        deprecation_date: Option<String>,
    }

    /// The most tokens of a model's input and output.
    ModelLimits {
        /// The longest input.
        context_tokens: Option<u64>,
        /// The longest completion.
        output_tokens: Option<u64>,
    }

    /// US dollars per token, or per query.
    ModelPrices {
        /// Of the request.
        input_usd: Option<f64>,
        /// Of the completion.
        output_usd: Option<f64>,
        /// Read from the provider's cache.
        cached_input_usd: Option<f64>,
        /// Written to the provider's cache.
        cache_write_usd: Option<f64>,
        /// A rerank's query.
        query_usd: Option<f64>,
    }

    /// What goes into and out of a model.
    ModelModalities {
        /// What it takes.
        input: Option<Vec<String>>,
        /// What it gives.
        output: Option<Vec<String>>,
    }

    /// How many tokens a request is.
    TokenCount {
        /// Of messages and tools.
        input_tokens: u64,
        /// The tokenizer of the count.
        tokenizer: String,
        /// Whether it is the model's own.
        exact: bool,
    }

    /// The prediction for a chat.
    ChatCheck {
        /// Whether it would work, as far as that is known.
        ok: bool,
        /// The requested model.
        requested_model: String,
        /// The deployments that could serve the chat.
        deployments: Vec<String>,
        /// The provider that would serve the chat.
        provider: Option<String>,
        /// Whether the worker has a key for it; `None` if that is unknown.
        key_present: Option<bool>,
        /// Members of the request that the model does not support.
        gaps: Vec<CapabilityGap>,
        /// Parameters that would be dropped.
        dropped: Vec<String>,
        /// Tokens of the request.
        input_tokens: u64,
        /// The tokenizer of the count.
        tokenizer: String,
        /// Whether it is the model's own.
        exact: bool,
        /// The most tokens of the completion.
        max_output_tokens: Option<u64>,
        /// The highest possible cost.
        max_cost_usd: Option<f64>,
    }

    /// A member of a request that the model does not support.
    CapabilityGap {
        /// The member of the request.
        member: String,
        /// The reason.
        reason: String,
    }

    /// Embedded texts.
    Embeddings {
        /// One vector for each text, in the order of the input: numbers, or base64 text if the request set that.
        embeddings: Vec<Value>,
        /// Tokens.
        usage: Option<Usage>,
        /// US dollars.
        cost_usd: Option<f64>,
        /// Where the cost comes from.
        cost_source: Option<CostSource>,
        /// The day of the prices, when they are from LiteLLM's price map.
        price_map_date: Option<String>,
        /// The model that served the request.
        model: Option<String>,
        /// The requested model.
        requested_model: String,
        /// The provider that served the request.
        provider: Option<String>,
        /// The attempts, and how the provider's request differs from this one.
        receipt: Option<Receipt>,
    }

    /// Documents in the order of their relevance.
    Ranking {
        /// The best first.
        results: Vec<RankedDocument>,
        /// Tokens.
        usage: Option<Usage>,
        /// US dollars.
        cost_usd: Option<f64>,
        /// Where the cost comes from.
        cost_source: Option<CostSource>,
        /// The day of the prices, when they are from LiteLLM's price map.
        price_map_date: Option<String>,
        /// The model that served the request.
        model: Option<String>,
        /// The requested model.
        requested_model: String,
        /// The provider that served the request.
        provider: Option<String>,
        /// The attempts, and how the provider's request differs from this one.
        receipt: Option<Receipt>,
    }

    /// A document of a [`Ranking`].
    RankedDocument {
        /// Its position in the request.
        index: usize,
        /// Its relevance.
        score: f64,
        /// Its text, if the request set `return_documents`.
        document: Option<String>,
    }

    /// A worker's state.
    WorkerStatus {
        /// The worker's version.
        version: String,
        /// Since its start, in milliseconds.
        uptime_ms: f64,
        /// Counts of its requests.
        requests: RequestCounts,
        /// Resident memory, if the system reports it.
        memory_bytes: Option<u64>,
        /// The state of LiteLLM in it.
        engine: EngineState,
        /// The Redis that it shares with others.
        redis: RedisState,
        /// The parts that do not fit the installed LiteLLM; the others serve. None until the worker has tried them.
        degraded: Option<Vec<Degraded>>,
        /// Its engine processes; none in a worker of one process.
        engines: Vec<EngineProcess>,
        /// The invariants of the protocol that it has found broken, by name, with how often; empty in a worker without a fault.
        violations: BTreeMap<String, u64>,
    }

    /// An engine process of a worker.
    EngineProcess {
        /// Its process id, once it has one.
        pid: Option<u32>,
        /// `starting`, `ready`, `draining`, `ending` or `lost`.
        state: String,
        /// The requests that it runs.
        in_flight: u64,
        /// Those that it has answered.
        requests: u64,
        /// Its resident memory as it last reported it.
        rss_mib: Option<f64>,
    }

    /// The changes by a reload of the config. Settings have the names of the config.
    ConfigReloaded {
        /// All models.
        models: Vec<String>,
        /// New models.
        added: Vec<String>,
        /// Removed models.
        removed: Vec<String>,
        /// Models with changed deployments.
        changed: Vec<String>,
        /// The settings that have changed.
        settings: Vec<String>,
        /// Changed settings that need a restart of the worker.
        restart_needed: Vec<String>,
        /// Warnings for the operator.
        warnings: Vec<String>,
    }

    /// A part of a worker that does not fit the installed LiteLLM.
    Degraded {
        /// A patch, a format or a mode.
        part: String,
        /// Why it does not fit.
        reason: String,
        /// What that means for chats.
        effect: String,
    }

    /// What a worker knows of its Redis.
    RedisState {
        /// `none` where none is configured, else `connecting`, `connected`, `lost` or `not_installed`.
        state: RedisStatus,
        /// For how long it has been so, in milliseconds.
        since_ms: Option<f64>,
    }

    /// The limits that a path counts against.
    BudgetList {
        /// Those of all requests first.
        budgets: Vec<Budget>,
    }

    /// A limit of a path, and what is used of it.
    Budget {
        /// Whose it is; `/` for all requests.
        path: String,
        /// The length of its window, if it has one.
        window_ms: Option<u64>,
        /// US dollars, if these are limited.
        max_usd: Option<f64>,
        /// Spent.
        used_usd: f64,
        /// Reserved by requests in flight.
        reserved_usd: f64,
        /// Tokens, if these are limited.
        max_tokens: Option<u64>,
        /// Spent.
        used_tokens: u64,
        /// Reserved by requests in flight.
        reserved_tokens: u64,
        /// When the window ends, in milliseconds.
        resets_ms: Option<u64>,
        /// In an error: the most that the refused request could have cost.
        #[serde(skip_serializing_if = "Option::is_none")]
        needed_usd: Option<f64>,
        /// In an error: the most that the refused request could have used.
        #[serde(skip_serializing_if = "Option::is_none")]
        needed_tokens: Option<u64>,
    }

    /// A worker's requests.
    RequestCounts {
        /// Now.
        in_flight: u64,
        /// Since the start.
        total: u64,
        /// How many ended how: `ok`, or the name of an [`ErrorKind`].
        outcomes: BTreeMap<String, u64>,
        /// Counts of requests by the chat path that served them.
        engines: BTreeMap<String, u64>,
    }
}

impl Embeddings {
    /// The vectors, if the request set numbers.
    pub fn vectors(&self) -> Result<Vec<Vec<f64>>> {
        let read = |vector: &Value| Vec::<f64>::deserialize(vector);
        let vectors: std::result::Result<_, _> = self.embeddings.iter().map(read).collect();
        vectors.map_err(|error| Error::new(ErrorKind::Parse, format!("the embeddings are no lists of numbers: {error}")))
    }
}

/// Texts to be embedded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EmbedRequest {
    /// Any LiteLLM name of an embedding model.
    pub model: String,
    /// The texts.
    pub input: Vec<String>,
    /// `float`, the default, or `base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<EncodingFormat>,
    /// The length of the vectors, where the model lets one choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
    /// The end user, for the provider's abuse detection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Only for the bridge: `budget`, the path of the budget that it counts against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Object>,
    /// Clocks that the worker keeps; only the total one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// What a provider alone knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_params: Option<Object>,
    /// The task that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// A name for this request: when it is repeated, no provider is called again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// About the call: `traceparent` and `tracestate` (W3C Trace Context) make the worker's span a child of yours.
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Object>,
    /// Members without a name here.
    #[serde(flatten)]
    pub extra: Object,
}

impl EmbedRequest {
    /// Texts and the model to embed them with.
    pub fn new<T: Into<String>>(model: impl Into<String>, input: impl IntoIterator<Item = T>) -> Self {
        let input = input.into_iter().map(Into::into).collect();
        EmbedRequest { model: model.into(), input, ..EmbedRequest::default() }
    }

    setters! {
        /// `float` or `base64`.
        encoding_format: EncodingFormat,
        /// The end user.
        user: String,
        /// Clocks that the worker keeps; only the total one.
        deadlines: Deadlines,
        /// The task that it belongs to, with its limits.
        task: Task,
        /// A name for this request: when it is repeated, no provider is called again.
        idempotency_key: String,
    }

    plain_setters! {
        /// The length of the vectors.
        dimensions: u64,
    }

    object_setters! {
        /// Only for the bridge: `budget`, the path of the budget that it counts against.
        metadata,
        /// What a provider alone knows.
        provider_params,
        /// About the call: `traceparent` and `tracestate` of yours.
        meta,
    }
}

/// Documents to be put in the order of their worth for a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RerankRequest {
    /// Any LiteLLM name of a rerank model.
    pub model: String,
    /// What they are to be measured by.
    pub query: String,
    /// The documents.
    pub documents: Vec<String>,
    /// How many to return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_n: Option<u64>,
    /// Whether to return their texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_documents: Option<bool>,
    /// Only for the bridge: `budget`, the path of the budget that it counts against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Object>,
    /// Clocks that the worker keeps; only the total one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// What a provider alone knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_params: Option<Object>,
    /// The task that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// A name for this request: when it is repeated, no provider is called again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// About the call: `traceparent` and `tracestate` (W3C Trace Context) make the worker's span a child of yours.
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Object>,
    /// Members without a name here.
    #[serde(flatten)]
    pub extra: Object,
}

impl RerankRequest {
    /// Documents, and the model and query to rank them with.
    pub fn new<T: Into<String>>(
        model: impl Into<String>,
        query: impl Into<String>,
        documents: impl IntoIterator<Item = T>,
    ) -> Self {
        let documents = documents.into_iter().map(Into::into).collect();
        RerankRequest { model: model.into(), query: query.into(), documents, ..RerankRequest::default() }
    }

    setters! {
        /// Whether to return their texts.
        return_documents: bool,
        /// Clocks that the worker keeps; only the total one.
        deadlines: Deadlines,
        /// The task that it belongs to, with its limits.
        task: Task,
        /// A name for this request: when it is repeated, no provider is called again.
        idempotency_key: String,
    }

    plain_setters! {
        /// How many to return.
        top_n: u64,
    }

    object_setters! {
        /// Only for the bridge: `budget`, the path of the budget that it counts against.
        metadata,
        /// What a provider alone knows.
        provider_params,
        /// About the call: `traceparent` and `tracestate` of yours.
        meta,
    }
}
