//! Tools that run in the agent, and the loop that calls them.
//!
//! Owns the loop: turns, parallel calls, what a failed tool becomes. Refuses to know what a tool does.

use std::borrow::Borrow;
use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use serde::Serialize;
use serde_json::Value;

use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{ChatDelta, ChatRequest, ChatResponse, Message, Tool, ToolCall, ToolChoice};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Handler = Arc<dyn Fn(ToolCall) -> BoxFuture<'static, std::result::Result<String, String>> + Send + Sync>;

type Observer<'a> = Box<dyn FnMut(Step<'_>) + Send + 'a>;

/// Tools that the agent runs itself: its functions and, with the feature `rmcp`, those of MCP servers.
///
/// ```no_run
/// use omni_bridge_client::{Bridge, ChatRequest, Tool, ToolSet};
/// use serde_json::{Value, json};
///
/// # async fn run(bridge: Bridge) -> omni_bridge_client::Result<()> {
/// let time = Tool::new("time").description("The time in a city").parameters(json!({
///     "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
/// }));
/// let tools = ToolSet::new().tool(time, |arguments: Value| async move { Ok::<_, String>(format!("noon in {}", arguments["city"])) });
/// let run = bridge.run_tools(ChatRequest::new("openai/gpt-4o-mini").user("What time is it in Brno?"), &tools).await?;
/// println!("{}", run.response.text());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct ToolSet {
    tools: Vec<(Tool, Handler)>,
}

impl ToolSet {
    /// No tools yet.
    pub fn new() -> Self {
        ToolSet::default()
    }

    /// Adds a tool with a schema of your own. The arguments are parsed into the function's parameter, such as a `Deserialize` type
    /// or [`Value`]; what does not fit is an error that the model gets. A text that the function returns is the result as it is,
    /// any other value is its JSON.
    pub fn tool<A, R, E, F, Fut>(mut self, tool: Tool, function: F) -> Self
    where
        A: serde::de::DeserializeOwned,
        R: Serialize,
        E: fmt::Display,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<R, E>> + Send + 'static,
    {
        let handler = move |call: ToolCall| -> BoxFuture<'static, std::result::Result<String, String>> {
            let running = call.parse::<A>().map(&function);
            Box::pin(async move {
                let result = running.map_err(|error| error.message().to_owned())?.await.map_err(|error| error.to_string())?;
                text_of(&result)
            })
        };
        self.tools.push((tool, Arc::new(handler)));
        self
    }

    /// Adds a tool with a type as its parameters: the schema is that of `A`, and doc comments of the fields describe them.
    ///
    /// ```
    /// use omni_bridge_client::ToolSet;
    ///
    /// #[derive(schemars::JsonSchema, serde::Deserialize)]
    /// struct Product {
    ///     /// The first factor
    ///     left: f64,
    ///     /// The second factor
    ///     right: f64,
    /// }
    ///
    /// async fn multiply(product: Product) -> Result<f64, String> {
    ///     Ok(product.left * product.right)
    /// }
    ///
    /// let tools = ToolSet::new().function("multiply", "Multiplies two numbers", multiply);
    /// ```
    #[cfg(feature = "schema")]
    pub fn function<A, R, E, F, Fut>(self, name: &str, description: &str, function: F) -> Self
    where
        A: serde::de::DeserializeOwned + schemars::JsonSchema,
        R: Serialize,
        E: fmt::Display,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<R, E>> + Send + 'static,
    {
        self.tool(Tool::of::<A>(name).description(description), function)
    }

    /// Adds every tool of an MCP server, by a running client of the crate `rmcp`.
    #[cfg(feature = "rmcp")]
    pub async fn mcp(mut self, server: &rmcp::service::Peer<rmcp::RoleClient>) -> Result<Self> {
        let failed = |error| Error::new(ErrorKind::Tool, format!("the MCP server did not list its tools: {error}"));
        for listed in server.list_all_tools().await.map_err(failed)? {
            let name = listed.name.to_string();
            let mut tool = Tool::new(&name).parameters(Value::Object((*listed.input_schema).clone()));
            tool.function.description = listed.description.as_ref().map(ToString::to_string);
            let server = server.clone();
            let handler = move |call: ToolCall| -> BoxFuture<'static, std::result::Result<String, String>> {
                let (server, name) = (server.clone(), name.clone());
                Box::pin(async move { call_mcp(&server, name, &call).await })
            };
            self.tools.push((tool, Arc::new(handler)));
        }
        Ok(self)
    }

    /// The tools as requests have them.
    pub fn tools(&self) -> impl Iterator<Item = &Tool> {
        self.tools.iter().map(|(tool, _)| tool)
    }

    /// Runs a call. An error is what the model should know of it.
    pub async fn call(&self, call: &ToolCall) -> std::result::Result<String, String> {
        if let Some((_, handler)) = self.tools.iter().find(|(tool, _)| tool.function.name == call.name()) {
            handler(call.clone()).await
        } else {
            let names: Vec<_> = self.tools().map(|tool| tool.function.name.as_str()).collect();
            Err(format!("unknown tool {:?}; known: {}", call.name(), names.join(", ")))
        }
    }
}

impl fmt::Debug for ToolSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tools().map(|tool| &tool.function.name)).finish()
    }
}

fn text_of(result: &impl Serialize) -> std::result::Result<String, String> {
    match serde_json::to_value(result) {
        Ok(Value::String(text)) => Ok(text),
        Ok(value) => Ok(value.to_string()),
        Err(error) => Err(format!("the result can't be written as JSON: {error}")),
    }
}

#[cfg(feature = "rmcp")]
async fn call_mcp(
    server: &rmcp::service::Peer<rmcp::RoleClient>,
    name: String,
    call: &ToolCall,
) -> std::result::Result<String, String> {
    let arguments: crate::types::Object = call.parse().map_err(|error| error.message().to_owned())?;
    let params = rmcp::model::CallToolRequestParams::new(name).with_arguments(arguments);
    let result = server.call_tool(params).await.map_err(|error| error.to_string())?;
    let texts: Vec<String> = (result.content.iter())
        .map(|content| match content.as_text() {
            Some(text) => text.text.clone(),
            None => serde_json::to_string(content).unwrap_or_default(),
        })
        .collect();
    let text = match (&result.structured_content, texts.is_empty()) {
        (Some(value), true) => value.to_string(),
        _ => texts.join("\n"),
    };
    if result.is_error == Some(true) { Err(text) } else { Ok(text) }
}

/// A step of a tool run, as [`ToolRun::on_step`] sees it. Turns count from 1.
///
/// ```
/// use omni_bridge_client::{ChatRequest, Step, Tool, ToolSet, mock::{Mock, Reply}};
/// use serde_json::{Value, json};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let mock = Mock::new().reply(Reply::tool_call("time", json!({"city": "Brno"}))).reply("it is noon");
/// let bridge = mock.spawn().await?;
/// let tools = ToolSet::new().tool(Tool::new("time"), |_: Value| async { Ok::<_, String>("12:00") });
/// let mut called = 0;
/// let run = bridge.run_tools(ChatRequest::new("any/model").user("What time is it in Brno?"), &tools);
/// run.on_step(|step| called += usize::from(matches!(step, Step::ToolCall { .. }))).await?;
/// assert_eq!(called, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Step<'a> {
    /// A request is about to be sent.
    Request {
        /// The turn.
        turn: usize,
        /// The request.
        request: &'a ChatRequest,
    },
    /// A delta has come; only with [`ToolRun::streamed`].
    Delta {
        /// The turn.
        turn: usize,
        /// The delta.
        delta: &'a ChatDelta,
    },
    /// A response has come.
    Response {
        /// The turn.
        turn: usize,
        /// The response.
        response: &'a ChatResponse,
    },
    /// A tool is about to run.
    ToolCall {
        /// The turn.
        turn: usize,
        /// The call.
        call: &'a ToolCall,
    },
    /// A tool has ended.
    ToolResult {
        /// The turn.
        turn: usize,
        /// The call.
        call: &'a ToolCall,
        /// Its result, or the error that the model gets.
        result: &'a std::result::Result<String, String>,
    },
}

/// A chat with tools, until the model calls none: made by [`Bridge::run_tools`], run by awaiting it. Dropping the future cancels the
/// chat at the provider and the tools that run.
///
/// ```
/// use omni_bridge_client::{ChatRequest, Tool, ToolSet, mock::{Mock, Reply}};
/// use serde_json::{Value, json};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let mock = Mock::new().reply(Reply::tool_call("time", json!({"city": "Brno"}))).reply("it is noon");
/// let bridge = mock.spawn().await?;
/// let tools = ToolSet::new().tool(Tool::new("time"), |_: Value| async { Ok::<_, String>("12:00") });
/// let run = bridge.run_tools(ChatRequest::new("any/model").user("What time is it in Brno?"), &tools).max_turns(5);
/// assert_eq!(run.await?.response.text(), "it is noon");
/// # Ok(())
/// # }
/// ```
#[must_use = "a tool run does nothing until it is awaited"]
pub struct ToolRun<'a> {
    bridge: &'a Bridge,
    request: ChatRequest,
    tools: &'a ToolSet,
    max_turns: usize,
    is_streamed: bool,
    observer: Option<Observer<'a>>,
}

/// How a tool run ended.
///
/// ```
/// use omni_bridge_client::{ChatRequest, Tool, ToolSet, mock::{Mock, Reply}};
/// use serde_json::{Value, json};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let mock = Mock::new().reply(Reply::tool_call("time", json!({"city": "Brno"}))).reply("it is noon");
/// let bridge = mock.spawn().await?;
/// let tools = ToolSet::new().tool(Tool::new("time"), |_: Value| async { Ok::<_, String>("12:00") });
/// let done = bridge.run_tools(ChatRequest::new("any/model").user("What time is it in Brno?"), &tools).await?;
/// assert_eq!((done.turns, done.response.text()), (2, "it is noon"));
/// let next = done.request.user("And in London?"); // the conversation goes on
/// assert_eq!(next.messages.len(), 5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ToolRunResult {
    /// The last response.
    pub response: ChatResponse,
    /// The whole conversation, the last response included: continue it with [`ChatRequest::user`].
    pub request: ChatRequest,
    /// Requests that were sent.
    pub turns: usize,
    /// The cost of all turns, as far as prices are known.
    pub cost_usd: Option<f64>,
}

impl Bridge {
    /// Runs a chat with tools: sends the request, runs the calls of a turn in parallel, sends their results, until a response has no
    /// calls. An error of a tool is sent to the model, which may try something else.
    pub fn run_tools<'a>(&'a self, request: impl Borrow<ChatRequest>, tools: &'a ToolSet) -> ToolRun<'a> {
        let request = request.borrow().clone().tools(tools.tools().cloned());
        ToolRun { bridge: self, request, tools, max_turns: 20, is_streamed: false, observer: None }
    }
}

impl<'a> ToolRun<'a> {
    /// The most requests of the run; 20 unless set. A run that needs more ends with [`ErrorKind::TurnLimit`].
    pub fn max_turns(mut self, turns: usize) -> Self {
        self.max_turns = turns;
        self
    }

    /// Streams each turn, so that [`Step::Delta`] is observed.
    pub fn streamed(mut self) -> Self {
        self.is_streamed = true;
        self
    }

    /// Calls this with each step, in the order in which they happen.
    pub fn on_step(mut self, observer: impl FnMut(Step<'_>) + Send + 'a) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    fn observe(&mut self, step: Step<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(step);
        }
    }

    async fn run(mut self) -> Result<ToolRunResult> {
        let mut cost = None;
        for turn in 1..=self.max_turns {
            let response = self.turn(turn).await?;
            cost = add(cost, response.cost_usd);
            let message = response.message.clone(); // verbatim: it has what the provider needs to see again
            self.request = std::mem::take(&mut self.request).message(message);
            if response.tool_calls.is_empty() {
                return Ok(ToolRunResult { response, request: self.request, turns: turn, cost_usd: cost });
            }
            let results = self.run_calls(turn, &response.tool_calls).await;
            let messages = response
                .tool_calls
                .iter()
                .zip(results)
                .map(|(call, result)| Message::tool(&call.id, result.unwrap_or_else(|error| format!("error: {error}"))));
            self.request = std::mem::take(&mut self.request).messages(messages);
            // A forced call is for the first turn: forced again, it would never end.
            if matches!(self.request.tool_choice, Some(ToolChoice::Required | ToolChoice::Function(_))) {
                self.request.tool_choice = None;
            }
        }
        let message = format!("the model still calls tools after {} turns; see ToolRun::max_turns", self.max_turns);
        Err(Error::new(ErrorKind::TurnLimit, message).sent(true))
    }

    async fn turn(&mut self, turn: usize) -> Result<ChatResponse> {
        let request = std::mem::take(&mut self.request);
        self.observe(Step::Request { turn, request: &request });
        let response = if self.is_streamed {
            let mut stream = self.bridge.chat_stream(&request).await?;
            while let Some(delta) = stream.next().await {
                self.observe(Step::Delta { turn, delta: &delta? });
            }
            stream.finish().await?
        } else {
            self.bridge.chat(&request).await?
        };
        self.request = request;
        self.observe(Step::Response { turn, response: &response });
        Ok(response)
    }

    /// In this task, so that dropping the run drops them.
    async fn run_calls(&mut self, turn: usize, calls: &[ToolCall]) -> Vec<std::result::Result<String, String>> {
        let tools = self.tools;
        let mut running = Vec::with_capacity(calls.len());
        for call in calls {
            self.observe(Step::ToolCall { turn, call });
            running.push(Some(Box::pin(tools.call(call))));
        }
        let mut results: Vec<_> = calls.iter().map(|_| None).collect();
        poll_fn(|context| {
            let slots = running.iter_mut().zip(&mut results).zip(calls);
            for ((slot, result), call) in slots {
                let Some(Poll::Ready(done)) = slot.as_mut().map(|future| future.as_mut().poll(context)) else { continue };
                *slot = None;
                self.observe(Step::ToolResult { turn, call, result: &done });
                *result = Some(done);
            }
            if running.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        results.into_iter().flatten().collect()
    }
}

impl<'a> IntoFuture for ToolRun<'a> {
    type Output = Result<ToolRunResult>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for ToolRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolRun").field("tools", self.tools).field("max_turns", &self.max_turns).finish_non_exhaustive()
    }
}

fn add(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        _ => one.or(other),
    }
}
