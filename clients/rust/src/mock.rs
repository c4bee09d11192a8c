//! A bridge without a worker: an agent's tests run without Python, on responses that they write.
//!
//! Owns a worker's side of the protocol, played in memory. Refuses to be a model: what it responds comes from a [`Script`].
//!
//! ```
//! use omni_bridge_client::mock::{Mock, Reply};
//! use omni_bridge_client::{ChatRequest, ErrorKind};
//! use serde_json::json;
//!
//! # async fn run() -> omni_bridge_client::Result<()> {
//! let mock = Mock::new()
//!     .reply(Reply::tool_call("weather", json!({"city": "Brno"})))
//!     .reply("it is sunny")
//!     .reply(Reply::error(ErrorKind::RateLimited));
//! let bridge = mock.spawn().await?;
//! let response = bridge.chat(ChatRequest::new("any/model").user("weather?")).await?;
//! assert_eq!(response.tool_calls[0].name(), "weather");
//! assert_eq!(mock.requests().len(), 1);
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

pub use crate::cassette::Cassette;

use crate::bridge::Bridge;
use crate::builder::BridgeBuilder;
use crate::call::lock;
use crate::connection::PROTOCOL_VERSION;
use crate::error::{ErrorKind, Result};
use crate::io::IoThread;
use crate::types::{ChatRequest, Object};

/// What a mock bridge responds to a chat. A closure is one: `|request: &ChatRequest| Reply::text("hi")`.
///
/// This is the seam for recorded conversations: a [`Cassette`] is a `Script`.
///
/// ```
/// use omni_bridge_client::ChatRequest;
/// use omni_bridge_client::mock::{Mock, Reply, Script};
///
/// struct Echo;
///
/// impl Script for Echo {
///     fn reply(&mut self, request: &ChatRequest) -> Reply {
///         Reply::text(request.messages.last().and_then(|message| message.text()).unwrap_or_default())
///     }
/// }
///
/// let mock = Mock::new().script(Echo);
/// ```
pub trait Script: Send {
    /// The reply to a request. `request.stream`: whether it is streamed.
    fn reply(&mut self, request: &ChatRequest) -> Reply;
}

impl<F: FnMut(&ChatRequest) -> Reply + Send> Script for F {
    fn reply(&mut self, request: &ChatRequest) -> Reply {
        self(request)
    }
}

/// One reply of a mock bridge.
///
/// ```
/// use omni_bridge_client::{ErrorKind, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// let mock = Mock::new()
///     .reply("a text")
///     .reply(Reply::tool_call("weather", json!({"city": "Brno"})))
///     .reply(Reply::text("a text that costs").with("cost_usd", 0.01))
///     .reply(Reply::error(ErrorKind::Timeout))
///     .reply(Reply::hang()); // until the request is cancelled
/// ```
#[derive(Clone, Debug)]
pub struct Reply(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Response {
        members: Object,
        deltas: Vec<Value>,
    },
    Error {
        data: Object,
        message: String,
    },
    Hang {
        deltas: Vec<Value>,
    },
    /// As a worker sent it: `name` is "result" or "error".
    Recorded {
        deltas: Vec<Value>,
        name: &'static str,
        outcome: Value,
    },
}

impl Reply {
    /// A text. Streamed, it comes word by word.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        let deltas = text.split_inclusive(' ').map(|word| json!({"content": word})).collect();
        let members = [("content".to_owned(), Value::from(text))].into_iter().collect();
        Reply(Kind::Response { members, deltas })
    }

    /// A call of a tool.
    pub fn tool_call(name: &str, arguments: impl Into<Value>) -> Self {
        Reply::tool_calls([(name, arguments.into())])
    }

    /// Calls of tools in one turn.
    pub fn tool_calls<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let call = |(index, (name, arguments)): (usize, (&str, Value))| json!({"id": format!("call_{index}"), "type": "function", "function": {"name": name, "arguments": arguments.to_string()}});
        let calls: Vec<Value> = calls.into_iter().enumerate().map(call).collect();
        let delta = |(index, call): (usize, &Value)| {
            let mut call = call.clone();
            if let Some(members) = call.as_object_mut() {
                members.insert("index".to_owned(), index.into());
            }
            json!({"tool_calls": [call]})
        };
        let deltas = calls.iter().enumerate().map(delta).collect();
        let members = [("tool_calls".to_owned(), Value::from(calls)), ("finish_reason".to_owned(), "tool_calls".into())];
        Reply(Kind::Response { members: members.into_iter().collect(), deltas })
    }

    /// Members of the response, such as `usage` or `cost_usd`, in the protocol's words.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        match &mut self.0 {
            Kind::Response { members, .. } => members.insert(name.to_owned(), value.into()),
            Kind::Error { data, .. } => data.insert(name.to_owned(), value.into()),
            Kind::Recorded { outcome, .. } => {
                outcome.as_object_mut().and_then(|outcome| outcome.insert(name.to_owned(), value.into()))
            }
            Kind::Hang { .. } => None,
        };
        self
    }

    /// The deltas of a stream, in the protocol's words, instead of one a word.
    #[must_use]
    pub fn deltas(mut self, pieces: impl IntoIterator<Item = Value>) -> Self {
        if let Kind::Response { deltas, .. } | Kind::Hang { deltas } | Kind::Recorded { deltas, .. } = &mut self.0 {
            *deltas = pieces.into_iter().collect();
        }
        self
    }

    /// An error. Kinds that are usually retryable are.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "a kind is named in the call")]
    pub fn error(kind: ErrorKind) -> Self {
        let retryable = matches!(
            kind,
            ErrorKind::RateLimited
                | ErrorKind::Timeout
                | ErrorKind::ProviderUnavailable
                | ErrorKind::Overloaded
                | ErrorKind::ShuttingDown
        );
        let data = [("kind".to_owned(), Value::from(kind.as_str())), ("retryable".to_owned(), retryable.into())];
        Reply(Kind::Error { data: data.into_iter().collect(), message: format!("the script replies with {kind}") })
    }

    /// An error's time until the next try.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        self.with("retry_after_ms", u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn recorded(deltas: Vec<Value>, name: &'static str, outcome: Value) -> Self {
        Reply(Kind::Recorded { deltas, name, outcome })
    }

    /// Nothing, until the request is cancelled; streamed, the deltas come first.
    #[must_use]
    pub fn hang() -> Self {
        Reply(Kind::Hang { deltas: Vec::new() })
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Reply::text(text)
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Reply::text(text)
    }
}

/// A mock bridge's replies and what it was sent. Cheap to clone; clones share both.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::Mock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let mock = Mock::new().reply("hi");
/// let bridge = mock.spawn().await?;
/// assert_eq!(bridge.chat(ChatRequest::new("any/model").user("hello")).await?.text(), "hi");
/// assert_eq!(mock.requests()[0].messages[0].text().as_deref(), Some("hello"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Mock(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    replies: VecDeque<Reply>,
    script: Option<Box<dyn Script>>,
    results: HashMap<String, Value>,
    requests: Vec<ChatRequest>,
    cancelled: usize,
}

impl Mock {
    /// Without replies: every chat fails with an error that reports this.
    #[must_use]
    pub fn new() -> Self {
        Mock::default()
    }

    /// One more reply; each is used once, in their order.
    #[must_use]
    pub fn reply(self, reply: impl Into<Reply>) -> Self {
        lock(&self.0).replies.push_back(reply.into());
        self
    }

    /// Replies to the chats that come once the single replies are used.
    #[must_use]
    pub fn script(self, script: impl Script + 'static) -> Self {
        lock(&self.0).script = Some(Box::new(script));
        self
    }

    /// The result of a method other than `chat`, such as `embed` or `models/get`, in the protocol's words. It is not used up.
    ///
    /// ```
    /// use omni_bridge_client::{EmbedRequest, mock::Mock};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let bridge = Mock::new().result("embed", json!({"embeddings": [[0.5, -0.5]]})).spawn().await?;
    /// let embeddings = bridge.embed(EmbedRequest::new("any/model", ["a text"])).await?;
    /// assert_eq!(embeddings.vectors()?, [[0.5, -0.5]]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn result(self, method: &str, result: impl Into<Value>) -> Self {
        lock(&self.0).results.insert(method.to_owned(), result.into());
        self
    }

    /// A bridge that responds with these replies.
    pub async fn spawn(&self) -> Result<Bridge> {
        self.spawn_with(Bridge::builder()).await
    }

    /// The same with settings of the client's, such as [`BridgeBuilder::retry`].
    pub async fn spawn_with(&self, builder: BridgeBuilder) -> Result<Bridge> {
        let thread = IoThread::start()?;
        let (client, worker) = tokio::io::duplex(64 * 1024);
        thread.io().spawn(serve(self.clone(), worker));
        let (reader, writer) = tokio::io::split(client);
        builder.connect_on(thread, reader, writer).await
    }

    /// The chats that were sent so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ChatRequest> {
        lock(&self.0).requests.clone()
    }

    /// Requests that were cancelled so far.
    #[must_use]
    pub fn cancelled(&self) -> usize {
        lock(&self.0).cancelled
    }

    fn next(&self, request: &ChatRequest) -> Reply {
        let mut state = lock(&self.0);
        state.requests.push(request.clone());
        if let Some(reply) = state.replies.pop_front() {
            return reply;
        }
        match &mut state.script {
            Some(script) => script.reply(request),
            None => Reply(Kind::Error {
                data: [("kind".to_owned(), Value::from("internal"))].into_iter().collect(),
                message: "the mock bridge has no reply left; add one with Mock::reply or Mock::script".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0);
        f.debug_struct("Mock").field("replies", &state.replies).field("requests", &state.requests.len()).finish_non_exhaustive()
    }
}

/// The worker's side. Ends with its input, or when the client reads no more. The next request is read once the responses so far are
/// written, so that nothing is queued here.
async fn serve(mock: Mock, pipe: impl AsyncRead + AsyncWrite + Send) {
    let (reader, mut writer) = tokio::io::split(pipe);
    let mut lines = BufReader::new(reader).lines();
    let mut hanging = HashMap::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        for message in respond(&mock, &mut hanging, &message) {
            if writer.write_all(format!("{message}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn respond(mock: &Mock, hanging: &mut HashMap<String, Value>, message: &Value) -> Vec<Value> {
    let (id, params) = (message.get("id").cloned().unwrap_or_default(), message.get("params").cloned().unwrap_or_default());
    let result = |result: Value| vec![json!({"jsonrpc": "2.0", "id": id, "result": result})];
    match message.get("method").and_then(Value::as_str) {
        Some("initialize") => result(json!({
            "protocolVersion": PROTOCOL_VERSION, "serverInfo": {"name": "mock", "version": env!("CARGO_PKG_VERSION")},
            "capabilities": {}, "limits": {"maxMessageBytes": 64 * 1024 * 1024, "maxInFlight": 100_000},
            "engine": {"name": "mock", "version": null, "ready": true},
        })),
        Some("ping") => result(json!({})),
        Some("chat") => chat(mock, hanging, &id, params),
        Some("notifications/cancelled") => {
            let cancelled = params.get("requestId").and_then(|id| hanging.remove(&id.to_string()));
            let error = |id: Value| {
                lock(&mock.0).cancelled += 1;
                let data = json!({"kind": "cancelled", "retryable": false, "upstream_closed": true});
                json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32800, "message": "cancelled", "data": data}})
            };
            cancelled.map(error).into_iter().collect()
        }
        Some(other) if !id.is_null() => {
            let known = lock(&mock.0).results.get(other).cloned();
            known.map_or_else(|| vec![unknown(&id, other)], result)
        }
        _ => Vec::new(),
    }
}

fn unknown(id: &Value, method: &str) -> Value {
    let message = format!("the mock bridge has no result of {method}; add one with Mock::result");
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": message, "data": {"kind": "method_not_found"}}})
}

fn chat(mock: &Mock, hanging: &mut HashMap<String, Value>, id: &Value, params: Value) -> Vec<Value> {
    let request: ChatRequest = serde_json::from_value(params).unwrap_or_default();
    let is_streamed = request.stream == Some(true);
    let streamed = |deltas: Vec<Value>| -> Vec<Value> {
        let delta = |(seq, delta): (usize, Value)| {
            let params = json!({"requestId": id, "seq": seq, "delta": delta});
            json!({"jsonrpc": "2.0", "method": "notifications/chat/delta", "params": params})
        };
        if is_streamed { deltas.into_iter().enumerate().map(delta).collect() } else { Vec::new() }
    };
    match mock.next(&request).0 {
        Kind::Response { members, deltas } => {
            let mut messages = streamed(deltas);
            messages.push(json!({"jsonrpc": "2.0", "id": id, "result": result(&request, members)}));
            messages
        }
        Kind::Error { data, message } => {
            let code = json!({"code": 1099, "message": message, "data": data});
            vec![json!({"jsonrpc": "2.0", "id": id, "error": code})]
        }
        Kind::Recorded { deltas, name, outcome } => {
            let mut messages = streamed(deltas);
            messages.push(json!({"jsonrpc": "2.0", "id": id, (name): outcome}));
            messages
        }
        Kind::Hang { deltas } => {
            hanging.insert(id.to_string(), id.clone());
            streamed(deltas)
        }
    }
}

fn result(request: &ChatRequest, members: Object) -> Value {
    let member = |name: &str| members.get(name).cloned().unwrap_or_default();
    let mut message = json!({"role": "assistant", "content": member("content")});
    if let (Some(calls), Some(message)) = (members.get("tool_calls"), message.as_object_mut()) {
        message.insert("tool_calls".to_owned(), calls.clone());
    }
    let mut result = json!({
        "content": null, "tool_calls": [], "reasoning": null, "refusal": null, "annotations": null, "finish_reason": "stop",
        "raw_finish_reason": null, "message": message, "usage": null, "cost_usd": null, "cost_source": null, "price_map_date": null,
        "rate_limits": null, "model": request.model, "requested_model": request.model, "provider": "mock", "id": null,
        "logprobs": null, "timing": {"queued_ms": 0.0, "first_token_ms": null, "total_ms": 0.0}, "receipt": null,
    });
    if let Some(whole) = result.as_object_mut() {
        whole.extend(members);
    }
    result
}
