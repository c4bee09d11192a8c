//! The methods other than `chat`: models, tokens, embeddings, rankings, the worker's state.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{CostSource, Deadlines, EngineState, Object, Receipt, Task, Usage};
use crate::error::{Error, ErrorKind, Result};

macro_rules! results {
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
    ///
    /// ```
    /// use omni_bridge_client::types::ModelMode;
    ///
    /// assert_eq!(ModelMode::from("embedding"), ModelMode::Embedding);
    /// assert_eq!(ModelMode::from("image_generation").as_str(), "image_generation"); // kept, without a name here
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::types::UnsupportedParameters;
    ///
    /// assert_eq!(UnsupportedParameters::from("dropped"), UnsupportedParameters::Dropped);
    /// assert_eq!(UnsupportedParameters::Rejected.as_str(), "rejected");
    /// ```
    UnsupportedParameters {
        /// The request fails.
        Rejected = "rejected",
        /// The request is sent without them.
        Dropped = "dropped",
    }
}

open_enum! {
    /// The connection of a worker to its Redis.
    ///
    /// ```
    /// use omni_bridge_client::types::RedisStatus;
    ///
    /// assert_eq!(RedisStatus::from("connected"), RedisStatus::Connected);
    /// assert_eq!(RedisStatus::NotInstalled.as_str(), "not_installed");
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::{EmbedRequest, types::EncodingFormat};
    ///
    /// let request = EmbedRequest::new("openai/text-embedding-3-small", ["a text"]).encoding_format(EncodingFormat::Base64);
    /// assert_eq!(request.encoding_format, Some("base64".into()));
    /// ```
    EncodingFormat {
        /// Lists of numbers; the default.
        Float = "float",
        /// Base64 text.
        Base64 = "base64",
    }
}

results! {
    /// A page of models.
    ///
    /// ```
    /// use omni_bridge_client::{mock::Mock, types::ModelList};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"models": [{"model": "offline/echo"}], "nextCursor": null});
    /// let bridge = Mock::new().result("models/list", result).spawn().await?;
    /// let page: ModelList = bridge.call("models/list", json!({"all": true})).await?; // Bridge::models reads all pages
    /// assert_eq!((page.models[0].model.as_str(), page.next_cursor), ("offline/echo", None));
    /// # Ok(())
    /// # }
    /// ```
    ModelList {
        /// The models of this page.
        models: Vec<ModelSummary>,
        /// What to ask with for the next page.
        #[serde(rename = "nextCursor")]
        next_cursor: Option<String>,
    }

    /// A model in a list.
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"models": [{"model": "openai/gpt-4o", "mode": "chat", "key_present": true}]});
    /// let bridge = Mock::new().result("models/list", result).spawn().await?;
    /// let models = bridge.models().await?;
    /// assert!(models[0].model == "openai/gpt-4o" && models[0].key_present == Some(true));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"model": "openai/gpt-4o", "provider": "openai", "supports": {"tools": true}});
    /// let bridge = Mock::new().result("models/get", result).spawn().await?;
    /// let model = bridge.model("openai/gpt-4o").await?;
    /// assert_eq!(model.provider.as_deref(), Some("openai"));
    /// assert_eq!(model.supports["tools"], Some(true));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"limits": {"context_tokens": 128_000, "output_tokens": 16_384}});
    /// let bridge = Mock::new().result("models/get", result).spawn().await?;
    /// let limits = bridge.model("openai/gpt-4o").await?.limits;
    /// assert_eq!((limits.context_tokens, limits.output_tokens), (Some(128_000), Some(16_384)));
    /// # Ok(())
    /// # }
    /// ```
    ModelLimits {
        /// The longest input.
        context_tokens: Option<u64>,
        /// The longest completion.
        output_tokens: Option<u64>,
    }

    /// US dollars per token, or per query.
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"prices": {"input_usd": 2.5e-6, "output_usd": 1e-5}});
    /// let bridge = Mock::new().result("models/get", result).spawn().await?;
    /// let prices = bridge.model("openai/gpt-4o").await?.prices;
    /// assert_eq!((prices.input_usd, prices.output_usd, prices.query_usd), (Some(2.5e-6), Some(1e-5), None));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"modalities": {"input": ["text", "image"], "output": ["text"]}});
    /// let bridge = Mock::new().result("models/get", result).spawn().await?;
    /// let modalities = bridge.model("openai/gpt-4o").await?.modalities;
    /// assert!(modalities.input.is_some_and(|kinds| kinds.contains(&"image".into())));
    /// # Ok(())
    /// # }
    /// ```
    ModelModalities {
        /// What it takes.
        input: Option<Vec<String>>,
        /// What it gives.
        output: Option<Vec<String>>,
    }

    /// How many tokens a request is.
    ///
    /// ```
    /// use omni_bridge_client::{ChatRequest, mock::Mock};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"input_tokens": 9, "tokenizer": "o200k_base", "exact": true});
    /// let bridge = Mock::new().result("tokens/count", result).spawn().await?;
    /// let count = bridge.count_tokens(&ChatRequest::new("openai/gpt-4o").user("hello")).await?;
    /// assert_eq!((count.input_tokens, count.exact), (9, true));
    /// # Ok(())
    /// # }
    /// ```
    TokenCount {
        /// Of messages and tools.
        input_tokens: u64,
        /// The tokenizer of the count.
        tokenizer: String,
        /// Whether it is the model's own.
        exact: bool,
    }

    /// The prediction for a chat.
    ///
    /// ```
    /// use omni_bridge_client::{ChatRequest, mock::Mock};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"ok": true, "input_tokens": 9, "max_cost_usd": 0.02});
    /// let bridge = Mock::new().result("chat/check", result).spawn().await?;
    /// let check = bridge.check(ChatRequest::new("openai/gpt-4o").user("hello")).await?;
    /// assert!(check.ok && check.max_cost_usd < Some(0.05));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::{ChatRequest, Tool, mock::Mock};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"ok": false, "gaps": [{"member": "tools", "reason": "no tools"}]});
    /// let bridge = Mock::new().result("chat/check", result).spawn().await?;
    /// let check = bridge.check(ChatRequest::new("any/model").user("hello").tool(Tool::new("weather"))).await?;
    /// assert_eq!((check.ok, check.gaps[0].member.as_str()), (false, "tools"));
    /// # Ok(())
    /// # }
    /// ```
    CapabilityGap {
        /// The member of the request.
        member: String,
        /// The reason.
        reason: String,
    }

    /// Embedded texts.
    ///
    /// ```
    /// use omni_bridge_client::{EmbedRequest, mock::Mock};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"embeddings": [[0.5, -0.5]], "cost_usd": 2e-8});
    /// let bridge = Mock::new().result("embed", result).spawn().await?;
    /// let embedded = bridge.embed(EmbedRequest::new("openai/text-embedding-3-small", ["a text"])).await?;
    /// assert_eq!(embedded.vectors()?, [[0.5, -0.5]]);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::{RerankRequest, mock::Mock};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"results": [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]});
    /// let bridge = Mock::new().result("rerank", result).spawn().await?;
    /// let documents = ["a cat", "a dog"];
    /// let ranking = bridge.rerank(RerankRequest::new("cohere/rerank-v3.5", "Who barks?", documents)).await?;
    /// assert_eq!(documents[ranking.results[0].index], "a dog");
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::{RerankRequest, mock::Mock};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"results": [{"index": 1, "score": 0.9, "document": "a dog"}]});
    /// let bridge = Mock::new().result("rerank", result).spawn().await?;
    /// let request = RerankRequest::new("cohere/rerank-v3.5", "Who barks?", ["a cat", "a dog"]).return_documents(true);
    /// let best = &bridge.rerank(request).await?.results[0];
    /// assert_eq!((best.index, best.score, best.document.as_deref()), (1, 0.9, Some("a dog")));
    /// # Ok(())
    /// # }
    /// ```
    RankedDocument {
        /// Its position in the request.
        index: usize,
        /// Its relevance.
        score: f64,
        /// Its text, if the request set `return_documents`.
        document: Option<String>,
    }

    /// A worker's state.
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"version": "0.1.0", "uptime_ms": 5000.0, "requests": {"in_flight": 3}});
    /// let bridge = Mock::new().result("status", result).spawn().await?;
    /// let status = &bridge.status().await?[0]; // of each worker
    /// assert_eq!((status.uptime_ms, status.requests.in_flight), (5000.0, 3));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"engines": [{"pid": 4711, "state": "ready", "in_flight": 2}]});
    /// let bridge = Mock::new().result("status", result).spawn().await?;
    /// let status = &bridge.status().await?[0]; // of each worker
    /// assert_eq!((status.engines[0].state.as_str(), status.engines[0].in_flight), ("ready", 2));
    /// # Ok(())
    /// # }
    /// ```
    EngineProcess {
        /// Its process id, once it has one.
        pid: Option<u32>,
        /// `starting`, `ready`, `draining`, `ending` or `lost`.
        state: String,
        /// The requests that it runs.
        in_flight: u64,
        /// Those that it has responded to.
        requests: u64,
        /// Its resident memory as it last reported it.
        rss_mib: Option<f64>,
    }

    /// The changes by a reload of the config. Settings have the names of the config.
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"added": ["gpt"], "restart_needed": ["max_in_flight"]});
    /// let bridge = Mock::new().result("config/reload", result).spawn().await?;
    /// let reloaded = &bridge.reload_config().await?[0]; // of each worker
    /// assert_eq!(reloaded.added, ["gpt"]);
    /// assert_eq!(reloaded.restart_needed, ["max_in_flight"]);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"degraded": [{"part": "patch x", "reason": "moved", "effect": "slower"}]});
    /// let bridge = Mock::new().result("status", result).spawn().await?;
    /// let status = &bridge.status().await?[0]; // of each worker
    /// for degraded in status.degraded.iter().flatten() {
    ///     println!("{}: {}; {}", degraded.part, degraded.reason, degraded.effect);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    Degraded {
        /// A patch, a format or a mode.
        part: String,
        /// Why it does not fit.
        reason: String,
        /// What that means for chats.
        effect: String,
    }

    /// What a worker knows of its Redis.
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"redis": {"state": "connected", "since_ms": 4000.0}});
    /// let bridge = Mock::new().result("status", result).spawn().await?;
    /// let status = &bridge.status().await?[0]; // of each worker
    /// assert_eq!(status.redis.state, "connected");
    /// assert_eq!(status.redis.since_ms, Some(4000.0));
    /// # Ok(())
    /// # }
    /// ```
    RedisState {
        /// `none` where none is configured, else `connecting`, `connected`, `lost` or `not_installed`.
        state: RedisStatus,
        /// For how long it has been so, in milliseconds.
        since_ms: Option<f64>,
    }

    /// The limits that a path counts against.
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"budgets": [{"path": "/", "max_usd": 100.0}, {"path": "agent-7", "max_usd": 5.0}]});
    /// let bridge = Mock::new().result("budgets/get", result).spawn().await?;
    /// let list = bridge.budgets("agent-7").await?;
    /// assert_eq!(list.budgets[1].max_usd, Some(5.0));
    /// # Ok(())
    /// # }
    /// ```
    BudgetList {
        /// Those of all requests first.
        budgets: Vec<Budget>,
    }

    /// A limit of a path, and what is used of it.
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"budgets": [{"path": "agent-7", "max_usd": 5.0, "used_usd": 1.5, "reserved_usd": 0.5}]});
    /// let bridge = Mock::new().result("budgets/get", result).spawn().await?;
    /// let budget = &bridge.budgets("agent-7").await?.budgets[0];
    /// let left = budget.max_usd.map(|limit| limit - budget.used_usd - budget.reserved_usd);
    /// assert_eq!(left, Some(3.0));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// use omni_bridge_client::mock::Mock;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let result = json!({"requests": {"total": 8, "outcomes": {"ok": 7, "timeout": 1}}});
    /// let bridge = Mock::new().result("status", result).spawn().await?;
    /// let status = &bridge.status().await?[0]; // of each worker
    /// assert_eq!((status.requests.total, status.requests.outcomes["timeout"]), (8, 1));
    /// # Ok(())
    /// # }
    /// ```
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
///
/// ```
/// use omni_bridge_client::EmbedRequest;
///
/// let request = EmbedRequest::new("openai/text-embedding-3-small", ["a cat", "a dog"]).dimensions(256);
/// assert_eq!((request.input.len(), request.dimensions), (2, Some(256)));
/// ```
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
///
/// ```
/// use omni_bridge_client::RerankRequest;
///
/// let request = RerankRequest::new("cohere/rerank-v3.5", "Who barks?", ["a cat", "a dog"]).top_n(1);
/// assert_eq!((request.documents.len(), request.top_n), (2, Some(1)));
/// ```
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
