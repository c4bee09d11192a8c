//! The request of a chat.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Content, Ensure, Fit, Message, Object, Task, Tool, ToolChoice};

open_enum! {
    /// How much a model thinks before it responds.
    ///
    /// ```
    /// use omni_bridge_client::{ChatRequest, types::ReasoningEffort};
    ///
    /// let request = ChatRequest::new("openai/gpt-5").user("hi").reasoning_effort(ReasoningEffort::Low); // or "low"
    /// assert_eq!(request.reasoning_effort, Some("low".into()));
    /// ```
    ReasoningEffort {
        /// Not at all.
        None = "none",
        /// As little as possible.
        Minimal = "minimal",
        /// A little.
        Low = "low",
        /// The usual amount.
        Medium = "medium",
        /// Much.
        High = "high",
    }
}

/// One call of a model. Build it with [`ChatRequest::new`] and the methods named like its fields.
///
/// A parameter that this crate has no field for goes into [`extra`](ChatRequest::extra); what a provider alone knows into
/// [`provider_params`](ChatRequest::provider_params), as far as the worker's operator allows it.
///
/// ```
/// use omni_bridge_client::ChatRequest;
///
/// let mut request = ChatRequest::new("openai/gpt-4o-mini").system("Be terse.").user("hi").max_tokens(500).temperature(0.2);
/// request.extra.insert("new_parameter".into(), true.into());
/// let sent = serde_json::to_value(&request).unwrap();
/// assert_eq!(sent["max_tokens"], 500);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatRequest {
    /// Any LiteLLM name such as `openai/gpt-4o-mini`, or a model of the worker's config.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// What the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Whether it may, must or must not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may ask for several calls at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Set by [`Bridge::chat_stream`](crate::Bridge::chat_stream), not by you.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Sampling temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The most tokens of the completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The same, as reasoning models want it: reasoning included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    /// A string, or a list of strings, that ends the completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Value>,
    /// For repeatable responses, if the provider supports them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// JSON mode or a JSON Schema, in OpenAI's shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// `low`, `medium`, `high` or what the model knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Anthropic's thinking: `{"type": "enabled", "budget_tokens": 1024}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Value>,
    /// Against repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Against staying with a subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Token id to bias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<Object>,
    /// Whether to return log probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// How many alternatives of each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u64>,
    /// The end user, for the provider's abuse detection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Labels; strings only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Object>,
    /// Clocks that the worker keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// What a provider alone knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_params: Option<Object>,
    /// `json`: corrects the form of what the model writes. Set by [`repair_json`](ChatRequest::repair_json).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<String>,
    /// Calls the model again until its response fits. Set by [`ensure`](ChatRequest::ensure).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ensure: Option<Ensure>,
    /// The task that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Drops and shortens messages until they fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// `auto`: the provider caches the prompt. Set by [`cache_auto`](ChatRequest::cache_auto).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// A name for this request: when it is repeated, no provider is called again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// About the call: `traceparent` and `tracestate` (W3C Trace Context) make the worker's span a child of yours.
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Object>,
    /// Members without a name here. A worker refuses those that it does not know either.
    #[serde(flatten)]
    pub extra: Object,
}

impl ChatRequest {
    /// A request without messages yet.
    pub fn new(model: impl Into<String>) -> Self {
        ChatRequest { model: model.into(), ..ChatRequest::default() }
    }

    /// Appends the host's instructions.
    #[must_use]
    pub fn system(self, content: impl Into<Content>) -> Self {
        self.message(Message::system(content))
    }

    /// Appends a message of the user.
    #[must_use]
    pub fn user(self, content: impl Into<Content>) -> Self {
        self.message(Message::user(content))
    }

    /// Appends a message, such as [`ChatResponse::message`](crate::ChatResponse::message).
    #[must_use]
    pub fn message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }

    /// Appends messages.
    #[must_use]
    pub fn messages(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.messages.extend(messages);
        self
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// Adds tools.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = Tool>) -> Self {
        self.tools.extend(tools);
        self
    }

    /// Counts the request against the budgets of this path, such as `agent-7/task-12`: `metadata.budget`.
    #[must_use]
    pub fn budget(mut self, path: impl Into<String>) -> Self {
        self.metadata.get_or_insert_with(Object::new).insert("budget".to_owned(), Value::from(path.into()));
        self
    }

    /// Names the end user, for the provider's abuse detection. ([`user`](ChatRequest::user) appends a message.)
    #[must_use]
    pub fn end_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Corrects the form of arguments and of JSON content: code fences, trailing commas, a string where a number belongs. Each change
    /// is in [`ToolCall::repaired`](super::ToolCall::repaired) or [`ChatResponse::repaired`](super::ChatResponse::repaired).
    #[must_use]
    pub fn repair_json(mut self) -> Self {
        self.repair = Some("json".to_owned());
        self
    }

    /// Makes the provider cache what the turns of an agent repeat. [`ChatResponse::cache`](super::ChatResponse::cache) has what it
    /// brought.
    #[must_use]
    pub fn cache_auto(mut self) -> Self {
        self.cache = Some("auto".to_owned());
        self
    }

    /// Calls the model again, with the problem named, until its tool calls and its content fit: at most this many calls, 1 to 10.
    #[must_use]
    pub fn ensure(mut self, attempts: u32) -> Self {
        self.ensure = Some(Ensure { attempts });
        self
    }

    setters! {
        /// Whether the model may, must or must not call tools.
        tool_choice: ToolChoice,
        /// Whether the model may ask for several calls at once.
        parallel_tool_calls: bool,
        /// Sampling temperature.
        temperature: f64,
        /// Nucleus sampling.
        top_p: f64,
        /// A string, or a list of strings, that ends the completion.
        stop: Value,
        /// For repeatable responses.
        seed: i64,
        /// JSON mode or a JSON Schema.
        response_format: Value,
        /// How much the model thinks.
        reasoning_effort: ReasoningEffort,
        /// Anthropic's thinking.
        thinking: Value,
        /// Against repetition.
        frequency_penalty: f64,
        /// Against staying with a subject.
        presence_penalty: f64,
        /// Whether to return log probabilities.
        logprobs: bool,
        /// Clocks that the worker keeps.
        deadlines: Deadlines,
        /// The task that it belongs to, with its limits.
        task: Task,
        /// Drops and shortens messages until they fit: a [`FitStrategy`](super::FitStrategy), or a [`Fit`] with a limit.
        fit: Fit,
        /// A name for this request: when it is repeated, no provider is called again.
        idempotency_key: String,
    }

    plain_setters! {
        /// The most tokens of the completion.
        max_tokens: u64,
        /// The most tokens of the completion, reasoning included.
        max_completion_tokens: u64,
        /// How many alternatives of each token.
        top_logprobs: u64,
    }

    object_setters! {
        /// Token id to bias.
        logit_bias,
        /// Labels; strings only.
        metadata,
        /// What a provider alone knows.
        provider_params,
        /// About the call: `traceparent` and `tracestate` of yours.
        meta,
    }
}

/// Clocks of one request, kept by the worker, in milliseconds from its arrival there. Unset ones are the worker's defaults.
///
/// ```
/// use std::time::Duration;
/// use omni_bridge_client::{ChatRequest, Deadlines};
///
/// let deadlines = Deadlines::total(Duration::from_secs(60)).first_token(Duration::from_secs(10));
/// let request = ChatRequest::new("openai/gpt-4o-mini").user("hi").deadlines(deadlines);
/// assert_eq!(request.deadlines.unwrap().first_token_ms, Some(10_000));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// For the whole response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    /// For the first delta of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// For the silence between two deltas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

impl Deadlines {
    /// A deadline for the whole response.
    #[must_use]
    pub fn total(limit: Duration) -> Self {
        Deadlines { total_ms: Some(milliseconds(limit)), ..Deadlines::default() }
    }

    /// With a deadline for the first delta of a stream.
    #[must_use]
    pub fn first_token(mut self, limit: Duration) -> Self {
        self.first_token_ms = Some(milliseconds(limit));
        self
    }

    /// With a deadline for the silence between two deltas.
    #[must_use]
    pub fn idle(mut self, limit: Duration) -> Self {
        self.idle_ms = Some(milliseconds(limit));
        self
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_spelled_as_openai_spells_it_and_says_only_what_was_set() {
        let request = ChatRequest::new("m").system("s").user("u").tool(Tool::new("f").parameters(json!({"type": "object"})));
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
                   "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]})
        );
    }

    #[test]
    fn a_message_goes_back_as_it_came() {
        let line = r#"{"role":"assistant","content":null,"z":{"b":1,"a":[1.5,null]},"thinking_blocks":[{"signature":"x=="}]}"#;
        let message: Message = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&ChatRequest::new("m").message(message).messages[0]).unwrap(), line);
    }
}
