//! What an agent holds.
//!
//! Owns the public calls. Refuses to know processes and pipes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{Instrument, Span};

use crate::connection::parse;
use crate::deadline::{LATE, TOTAL, check_if_late, late, total};
use crate::error::Result;
use crate::retry::RetryPolicy;
use crate::spans;
use crate::supervisor::{NoParams, Pool, Worker};
use crate::types::{
    BudgetList, ChatCheck, ChatRequest, ChatResponse, ConfigReloaded, Deadlines, EmbedRequest, Embeddings, FitStrategy, Fitted,
    InitializeResult, Message, ModelInfo, ModelList, ModelSummary, Object, Ranking, RerankRequest, Task, TaskBudget, TokenCount,
    Tool, WorkerStatus,
};
use crate::wire::ChatParams;

/// A running worker, or several. Cheap to clone; when the last clone (and the last stream) is dropped, the workers are killed.
///
/// Every call may be dropped at any time: what was not sent yet is taken back, what was sent is cancelled at the provider.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::Mock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply("hi").spawn().await?; // Bridge::spawn() starts a real worker
/// let other = bridge.clone(); // the same workers
/// let response = other.chat(ChatRequest::new("any/model").user("hello")).await?;
/// assert_eq!(response.text(), "hi");
/// bridge.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    pool: Pool,
    defaults: Defaults,
}

/// What a bridge adds to calls that have none of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) deadlines: Option<Deadlines>,
    pub(crate) retry: Option<RetryPolicy>,
}

impl Bridge {
    pub(crate) fn over(pool: Pool, defaults: Defaults) -> Self {
        Bridge(Arc::new(Inner { pool, defaults }))
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Sends a chat, and waits for the whole response. Takes a [`ChatRequest`] or a reference to one.
    pub async fn chat(&self, request: impl Borrow<ChatRequest>) -> Result<ChatResponse> {
        let request = request.borrow();
        let span = spans::span("chat", &request.model);
        let params = self.params(request, false, &span);
        let limit = total(request.deadlines.or(self.0.defaults.deadlines));
        let outcome = self.retried(|| self.request("chat", &params, limit)).instrument(span.clone()).await;
        outcome.inspect(|response| spans::record_response(&span, response)).inspect_err(|error| spans::record_error(&span, error))
    }

    /// What is sent for a request.
    pub(crate) fn params<'a>(&self, request: &'a ChatRequest, stream: bool, span: &Span) -> ChatParams<'a> {
        ChatParams { request, stream, deadlines: self.0.defaults.deadlines, trace: spans::trace_context(span) }
    }

    pub(crate) fn defaults(&self) -> &Defaults {
        &self.0.defaults
    }

    /// Makes a call, and makes it again as the retry policy has it.
    pub(crate) async fn retried<T, F: Future<Output = Result<T>>>(&self, mut call: impl FnMut() -> F) -> Result<T> {
        let mut retry = 0;
        loop {
            let error = match call().await {
                Err(error) => error,
                done => return done,
            };
            let Some(pause) = self.0.defaults.retry.as_ref().and_then(|policy| policy.pause(&error, retry)) else {
                return Err(error);
            };
            tracing::debug!(target: "omni_bridge::client", %error, ?pause, "a call failed; trying it again");
            self.0.pool.io().sleep(pause).await;
            retry += 1;
        }
    }

    /// The models that the worker's config declares, and the offline ones. Asks for all pages.
    pub async fn models(&self) -> Result<Vec<ModelSummary>> {
        self.list(false).await
    }

    /// The same, and every model of LiteLLM with a configured key.
    pub async fn all_models(&self) -> Result<Vec<ModelSummary>> {
        self.list(true).await
    }

    async fn list(&self, all: bool) -> Result<Vec<ModelSummary>> {
        let (mut models, mut cursor) = (Vec::new(), None);
        loop {
            let page: ModelList = self.call("models/list", json!({"all": all, "cursor": cursor})).await?;
            models.extend(page.models);
            if page.next_cursor.is_none() || page.next_cursor == cursor {
                return Ok(models);
            }
            cursor = page.next_cursor;
        }
    }

    /// The facts about a model: limits, prices, abilities.
    pub async fn model(&self, model: &str) -> Result<ModelInfo> {
        self.call("models/get", json!({"model": model})).await
    }

    /// What is used of the budgets that a path (`agent-7/task-12`) counts against; none where the operator sets no limit.
    pub async fn budgets(&self, path: &str) -> Result<BudgetList> {
        self.call("budgets/get", json!({"path": path})).await
    }

    /// What a task has spent and reserved.
    pub async fn task(&self, id: &str) -> Result<TaskBudget> {
        self.call("tasks/get", json!({"id": id})).await
    }

    /// Raises limits of a task, those that are set here.
    pub async fn raise_task(&self, task: &Task) -> Result<TaskBudget> {
        self.call("tasks/raise", task).await
    }

    /// What would become of a chat, without asking the model: its key, what it can't do, tokens and the highest possible cost.
    pub async fn check(&self, request: impl Borrow<ChatRequest>) -> Result<ChatCheck> {
        self.call("chat/check", self.params(request.borrow(), false, &Span::none())).await
    }

    /// How many tokens a request's messages and tools are.
    pub async fn count_tokens(&self, request: &ChatRequest) -> Result<TokenCount> {
        #[derive(Serialize)]
        struct Params<'a> {
            model: &'a str,
            messages: &'a [Message],
            #[serde(skip_serializing_if = "<[Tool]>::is_empty")]
            tools: &'a [Tool],
        }
        self.call("tokens/count", Params { model: &request.model, messages: &request.messages, tools: &request.tools }).await
    }

    /// The messages of a request that fit its model, or the limit in [`ChatRequest::fit`]; nothing is sent to the model.
    pub async fn fit(&self, request: &ChatRequest) -> Result<Fitted> {
        #[derive(Serialize)]
        struct Params<'a> {
            model: &'a str,
            messages: &'a [Message],
            #[serde(skip_serializing_if = "<[Tool]>::is_empty")]
            tools: &'a [Tool],
            #[serde(skip_serializing_if = "Option::is_none")]
            strategy: Option<&'a FitStrategy>,
            #[serde(skip_serializing_if = "Option::is_none")]
            max_input_tokens: Option<u64>,
        }
        let ChatRequest { model, messages, tools, fit, .. } = request;
        let (strategy, max_input_tokens) =
            (fit.as_ref().map(|fit| &fit.strategy), fit.as_ref().and_then(|fit| fit.max_input_tokens));
        self.call("tokens/fit", Params { model, messages, tools, strategy, max_input_tokens }).await
    }

    /// Embeds texts.
    pub async fn embed(&self, request: impl Borrow<EmbedRequest>) -> Result<Embeddings> {
        let request = request.borrow();
        let span = spans::span("embeddings", &request.model);
        let traced = with_trace(request.meta.as_ref(), &span).map(|meta| EmbedRequest { meta: Some(meta), ..request.clone() });
        let (params, limit) = (traced.as_ref().unwrap_or(request), total(request.deadlines));
        let outcome: Result<Embeddings> = self.retried(|| self.request("embed", params, limit)).instrument(span.clone()).await;
        let record = |done: &Embeddings| {
            spans::record_model(&span, done.provider.as_deref(), done.model.as_deref(), done.usage.as_ref(), done.cost_usd);
        };
        outcome.inspect(record).inspect_err(|error| spans::record_error(&span, error))
    }

    /// Puts documents in the order of their relevance to a query.
    pub async fn rerank(&self, request: impl Borrow<RerankRequest>) -> Result<Ranking> {
        let request = request.borrow();
        let span = spans::span("rerank", &request.model);
        let traced = with_trace(request.meta.as_ref(), &span).map(|meta| RerankRequest { meta: Some(meta), ..request.clone() });
        let (params, limit) = (traced.as_ref().unwrap_or(request), total(request.deadlines));
        let outcome: Result<Ranking> = self.retried(|| self.request("rerank", params, limit)).instrument(span.clone()).await;
        let record = |done: &Ranking| {
            spans::record_model(&span, done.provider.as_deref(), done.model.as_deref(), done.usage.as_ref(), done.cost_usd);
        };
        outcome.inspect(record).inspect_err(|error| spans::record_error(&span, error))
    }

    /// The state of every worker that is up.
    pub async fn status(&self) -> Result<Vec<WorkerStatus>> {
        self.of_each("status").await
    }

    /// Lets every running worker reload its config: it starts engine processes with the new one, and requests in flight end on the old
    /// ones. A config with errors is rejected: the error's `data` has all of them in `mistakes`, and the old config stays active. So it
    /// is in a worker without engine processes.
    pub async fn reload_config(&self) -> Result<Vec<ConfigReloaded>> {
        self.of_each("config/reload").await
    }

    async fn of_each<T: DeserializeOwned>(&self, method: &str) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for worker in self.0.pool.workers() {
            let (id, line) = Pool::line(method, NoParams {})?;
            let result =
                late(self.0.pool.io(), TOTAL + LATE, async { worker.connection.call_at_once(id, line).await?.outcome().await })
                    .await?;
            all.push(parse(&result)?);
        }
        Ok(all)
    }

    /// Any method of the worker, typed by you: for one that this crate has no name for yet.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<T> {
        self.request(method, params, TOTAL + LATE).await
    }

    /// Asks some worker for a sign of life.
    pub async fn ping(&self) -> Result<()> {
        self.call::<serde_json::Value>("ping", NoParams {}).await.map(drop)
    }

    /// Waits until every worker's engine is warm. There is no need to: a chat that comes earlier waits by itself.
    pub async fn ready(&self) -> Result<()> {
        self.0.pool.worker().await?;
        for worker in self.0.pool.workers() {
            worker.connection.ready().await?;
        }
        Ok(())
    }

    /// The workers that are up.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let info = |worker: Arc<Worker>| WorkerInfo {
            process_id: worker.process.as_ref().map(|process| process.id),
            in_flight: worker.connection.in_flight(),
            initialize_result: worker.connection.initialize_result(),
        };
        self.0.pool.workers().into_iter().map(info).collect()
    }

    /// Ends the workers: no more calls, those in flight get the grace of [`BridgeBuilder::shutdown_grace`](crate::BridgeBuilder::shutdown_grace), and then SIGTERM and SIGKILL
    /// for a worker that does not end by itself. Returns when all have ended. Later calls fail with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub async fn shutdown(&self) {
        self.0.pool.shut_down().await;
    }

    async fn request<T: DeserializeOwned>(&self, method: &str, params: impl Serialize, limit: Duration) -> Result<T> {
        let mut chosen = None;
        let outcome = late(self.0.pool.io(), limit, async {
            let (handle, worker) = self.0.pool.call(method, params).await?;
            chosen = Some(worker);
            handle.outcome().await
        });
        let outcome = outcome.await;
        if let (Err(error), Some(worker)) = (&outcome, chosen) {
            check_if_late(error, &worker);
        }
        parse(&outcome?)
    }
}

/// `_meta` with the span's trace context, if there is any to add.
fn with_trace(meta: Option<&Object>, span: &Span) -> Option<Object> {
    let trace = spans::trace_context(span);
    (!trace.is_empty()).then(|| {
        let mut whole = meta.cloned().unwrap_or_default();
        for (name, value) in trace {
            whole.entry(name).or_insert(value);
        }
        whole
    })
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("workers", &self.workers()).finish()
    }
}

/// A worker in the result of [`Bridge::workers`].
///
/// ```
/// use omni_bridge_client::mock::Mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().spawn().await?;
/// let workers = bridge.workers();
/// assert_eq!(workers[0].initialize_result.server_info.name, "mock");
/// assert_eq!((workers[0].process_id, workers[0].in_flight), (None, 0)); // a mock has no process
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its process; `None` if other code has started it.
    pub process_id: Option<u32>,
    /// Requests without a response so far.
    pub in_flight: usize,
    /// Its response to the handshake.
    pub initialize_result: InitializeResult,
}
