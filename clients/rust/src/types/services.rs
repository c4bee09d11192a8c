//! The methods beside `chat`: models, tokens, embeddings, rankings, the worker's state.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{CostSource, Deadlines, EngineState, Object, Receipt, Usage};
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
        /// What [`ChatRequest::model`](super::ChatRequest::model) is to say.
        model: String,
        /// Whose it is.
        provider: Option<String>,
        /// `chat`, `embedding` or what else it is for.
        mode: Option<ModelMode>,
        /// Whether the worker has a key for it; `None` if nobody can tell.
        key_present: Option<bool>,
    }

    /// What is known of a model.
    ModelInfo {
        /// What [`ChatRequest::model`](super::ChatRequest::model) is to say.
        model: String,
        /// Whose it is.
        provider: Option<String>,
        /// `chat`, `embedding` or what else it is for.
        mode: Option<ModelMode>,
        /// Whether the worker has a key for it; `None` if nobody can tell.
        key_present: Option<bool>,
        /// The ids of its deployments in the worker's config.
        deployments: Vec<String>,
        /// Tokens that it takes and gives.
        limits: ModelLimits,
        /// US dollars a token.
        prices: ModelPrices,
        /// What goes in and out, such as `text` and `image`.
        modalities: ModelModalities,
        /// Its abilities: `tools`, `reasoning`, `vision` and so on; `None` where nobody can tell.
        supports: BTreeMap<String, Option<bool>>,
        /// OpenAI's parameters that it takes.
        parameters: Option<Vec<String>>,
        /// What becomes of the others: `rejected` or `dropped`.
        unsupported_parameters: UnsupportedParameters,
        /// When its provider ends it.
        deprecation_date: Option<String>,
    }

    /// Tokens that a model takes and gives.
    ModelLimits {
        /// Conversation and answer.
        context_tokens: Option<u64>,
        /// The answer.
        output_tokens: Option<u64>,
    }

    /// US dollars a token, or a query.
    ModelPrices {
        /// Of the request.
        input_usd: Option<f64>,
        /// Of the answer.
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
        /// Which tokenizer counted.
        tokenizer: String,
        /// Whether it is the model's own.
        exact: bool,
    }

    /// What would become of a chat.
    ChatCheck {
        /// Whether nothing speaks against it.
        ok: bool,
        /// What was asked.
        requested_model: String,
        /// The deployments that could answer.
        deployments: Vec<String>,
        /// Who would answer.
        provider: Option<String>,
        /// Whether the worker has a key for it; `None` if nobody can tell.
        key_present: Option<bool>,
        /// What the model can't do.
        gaps: Vec<CapabilityGap>,
        /// Parameters that would be dropped.
        dropped: Vec<String>,
        /// Tokens of the request.
        input_tokens: u64,
        /// Which tokenizer counted.
        tokenizer: String,
        /// Whether it is the model's own.
        exact: bool,
        /// Most tokens of the answer.
        max_output_tokens: Option<u64>,
        /// The highest possible cost.
        max_cost_usd: Option<f64>,
    }

    /// Something that a request asks for and its model can't do.
    CapabilityGap {
        /// Which member of the request.
        member: String,
        /// What is wrong with it.
        reason: String,
    }

    /// Embedded texts.
    Embeddings {
        /// A vector a text, in the order of the input: numbers, or base64 text if that was asked for.
        embeddings: Vec<Value>,
        /// Tokens.
        usage: Option<Usage>,
        /// US dollars.
        cost_usd: Option<f64>,
        /// Where the cost comes from.
        cost_source: Option<CostSource>,
        /// The day of the prices, when they are from LiteLLM's price map.
        price_map_date: Option<String>,
        /// What answered.
        model: Option<String>,
        /// What was asked.
        requested_model: String,
        /// Who answered.
        provider: Option<String>,
        /// What became of the request on its way.
        receipt: Option<Receipt>,
    }

    /// Documents in the order of their worth.
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
        /// What answered.
        model: Option<String>,
        /// What was asked.
        requested_model: String,
        /// Who answered.
        provider: Option<String>,
        /// What became of the request on its way.
        receipt: Option<Receipt>,
    }

    /// A document of a [`Ranking`].
    RankedDocument {
        /// Its place in the request.
        index: usize,
        /// Its worth.
        score: f64,
        /// Its text, if that was asked for.
        document: Option<String>,
    }

    /// A worker's state.
    WorkerStatus {
        /// The worker's version.
        version: String,
        /// Since its start, in milliseconds.
        uptime_ms: f64,
        /// What was asked of it.
        requests: RequestCounts,
        /// Resident memory, where the system tells.
        memory_bytes: Option<u64>,
        /// What does the work in it.
        engine: EngineState,
        /// The Redis that it shares with others.
        redis: RedisState,
        /// The parts that do not fit the installed LiteLLM; the others serve. None until the worker has tried them.
        degraded: Option<Vec<Degraded>>,
    }

    /// What a worker serves after its config was read anew. Settings are named as in the config.
    ConfigReloaded {
        /// Every model there is.
        models: Vec<String>,
        /// Those that were not there before.
        added: Vec<String>,
        /// Those that are there no more.
        removed: Vec<String>,
        /// Those whose deployments have changed.
        changed: Vec<String>,
        /// The settings that have changed.
        settings: Vec<String>,
        /// Those that stay as they were until the worker is started anew.
        restart_needed: Vec<String>,
        /// What the operator should know.
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
        /// Reserved by requests that are under way.
        reserved_usd: f64,
        /// Tokens, if these are limited.
        max_tokens: Option<u64>,
        /// Spent.
        used_tokens: u64,
        /// Reserved by requests that are under way.
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
        /// How many of those whose receipt tells an engine were served by which, by its name.
        engines: BTreeMap<String, u64>,
    }
}

impl Embeddings {
    /// The vectors, if numbers were asked for.
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
    /// For the bridge alone: `budget`, a path whose money it spends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Object>,
    /// Clocks that the worker keeps; only the total one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// What a provider alone knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_params: Option<Object>,
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
    }

    plain_setters! {
        /// The length of the vectors.
        dimensions: u64,
    }

    object_setters! {
        /// For the bridge alone: `budget`, a path whose money it spends.
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
    /// For the bridge alone: `budget`, a path whose money it spends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Object>,
    /// Clocks that the worker keeps; only the total one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// What a provider alone knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_params: Option<Object>,
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
    }

    plain_setters! {
        /// How many to return.
        top_n: u64,
    }

    object_setters! {
        /// For the bridge alone: `budget`, a path whose money it spends.
        metadata,
        /// What a provider alone knows.
        provider_params,
        /// About the call: `traceparent` and `tracestate` of yours.
        meta,
    }
}
