//! The result of a chat, and its deltas.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::agent::none_if_null;
use super::{CacheMiss, CacheUse, Fitted, Message, Object, Problem, Repair, ToolCall};

open_enum! {
    /// Why the model stopped.
    ///
    /// ```
    /// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let reply = Reply::text("Once upon").with("finish_reason", "length");
    /// let bridge = Mock::new().reply(reply).spawn().await?;
    /// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
    /// let reason = response.finish_reason.expect("the provider gives a reason");
    /// assert_eq!(reason, "length"); // or FinishReason::Length
    /// # Ok(())
    /// # }
    /// ```
    FinishReason {
        /// The completion is finished.
        Stop = "stop",
        /// The limit of tokens was reached.
        Length = "length",
        /// It requests tool calls.
        ToolCalls = "tool_calls",
        /// The provider filtered content.
        ContentFilter = "content_filter",
    }
}

open_enum! {
    /// Where a [`cost`](ChatResponse::cost_usd) comes from.
    ///
    /// ```
    /// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}, types::CostSource};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> omni_bridge_client::Result<()> {
    /// let reply = Reply::text("hi").with("cost_usd", 0.002).with("cost_source", "price_map");
    /// let bridge = Mock::new().reply(reply).spawn().await?;
    /// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
    /// assert_eq!((response.cost_usd, response.cost_source), (Some(0.002), Some(CostSource::PriceMap)));
    /// # Ok(())
    /// # }
    /// ```
    CostSource {
        /// The provider reported it.
        Provider = "provider",
        /// The deployment's price in the worker's config.
        Deployment = "deployment",
        /// LiteLLM's price map; see [`ChatResponse::price_map_date`].
        PriceMap = "price_map",
        /// The worker's cache, so that it cost nothing.
        Cache = "cache",
    }
}

open_enum! {
    /// How an attempt ended: `ok`, or the name of an [`ErrorKind`](crate::ErrorKind) as `Other`.
    ///
    /// ```
    /// use omni_bridge_client::types::AttemptOutcome;
    ///
    /// let outcome = AttemptOutcome::from("rate_limited");
    /// assert_ne!(outcome, AttemptOutcome::Ok);
    /// assert_eq!(outcome.as_str(), "rate_limited");
    /// ```
    AttemptOutcome {
        /// The provider responded.
        Ok = "ok",
    }
}

open_enum! {
    /// What happened to a parameter before it reached the provider.
    ///
    /// ```
    /// use omni_bridge_client::types::ChangeKind;
    ///
    /// assert_eq!(ChangeKind::from("rewritten"), ChangeKind::Rewritten);
    /// assert_eq!(ChangeKind::Dropped.as_str(), "dropped");
    /// ```
    ChangeKind {
        /// It was left out.
        Dropped = "dropped",
        /// It got another value.
        Rewritten = "rewritten",
    }
}

/// A whole response.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply(Reply::text("hi").with("cost_usd", 0.002)).spawn().await?;
/// let mut request = ChatRequest::new("any/model").user("hello");
/// let response = bridge.chat(&request).await?;
/// assert_eq!((response.text(), response.cost_usd), ("hi", Some(0.002)));
/// request = request.message(response.message).user("and now?"); // the next turn
/// assert_eq!(request.messages.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatResponse {
    /// The text, if there is any.
    pub content: Option<String>,
    /// The tool calls that the model requests.
    #[serde(default, deserialize_with = "none_if_null")]
    pub tool_calls: Vec<ToolCall>,
    /// The model's reasoning, if the provider returns it.
    pub reasoning: Option<String>,
    /// The text of a refusal, if the model refused.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Citations and the like, in OpenAI's shape.
    #[serde(default)]
    pub annotations: Option<Vec<Value>>,
    /// Why it stopped.
    pub finish_reason: Option<FinishReason>,
    /// The same in the provider's word.
    #[serde(default)]
    pub raw_finish_reason: Option<String>,
    /// Push this into the next request's messages as it is: it holds what the provider needs to see again.
    pub message: Message,
    /// Tokens, if the provider counted them.
    pub usage: Option<Usage>,
    /// US dollars, if a price is known; never a guess.
    pub cost_usd: Option<f64>,
    /// Where the cost comes from.
    #[serde(default)]
    pub cost_source: Option<CostSource>,
    /// The day of the prices that it was calculated with.
    #[serde(default)]
    pub price_map_date: Option<String>,
    /// The remaining quota by the provider's headers.
    #[serde(default)]
    pub rate_limits: Option<RateLimits>,
    /// The model that served the request.
    pub model: Option<String>,
    /// The requested model.
    pub requested_model: String,
    /// The provider that served the request.
    pub provider: Option<String>,
    /// The provider's id of the response.
    pub id: Option<String>,
    /// Log probabilities in OpenAI's shape, if requested.
    #[serde(default)]
    pub logprobs: Option<Value>,
    /// How long it took.
    pub timing: Timing,
    /// The attempts, and how the provider's request differs from this one.
    #[serde(default)]
    pub receipt: Option<Receipt>,
    /// What the provider's prompt cache brought, with [`ChatRequest::cache_auto`](super::ChatRequest::cache_auto).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheUse>,
    /// Where the content does not fit the request's `response_format`.
    #[serde(default, deserialize_with = "none_if_null", skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What of the content was repaired.
    #[serde(default, deserialize_with = "none_if_null", skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<Repair>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

impl ChatResponse {
    /// The text, empty if there is none.
    #[must_use]
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }
}

/// Tokens; `None` if the provider did not report them.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("hi").with("usage", json!({"input_tokens": 9, "output_tokens": 2}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
/// let usage = response.usage.expect("the provider counts tokens");
/// assert_eq!((usage.input_tokens, usage.output_tokens), (Some(9), Some(2)));
/// assert_eq!(usage.reasoning_tokens, None); // not reported
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Of the request, cached ones included.
    pub input_tokens: Option<u64>,
    /// Of the completion.
    pub output_tokens: Option<u64>,
    /// Both.
    pub total_tokens: Option<u64>,
    /// Read from the provider's cache.
    pub cached_input_tokens: Option<u64>,
    /// Written to the provider's cache.
    pub cache_write_tokens: Option<u64>,
    /// Spent on thinking.
    pub reasoning_tokens: Option<u64>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// Milliseconds since the request arrived at the worker.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("hi").with("timing", json!({"queued_ms": 0.4, "total_ms": 812.5}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
/// assert_eq!((response.timing.queued_ms, response.timing.total_ms), (0.4, 812.5));
/// assert_eq!(response.timing.first_token_ms, None); // not streamed
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timing {
    /// Until it was passed to the backend.
    pub queued_ms: f64,
    /// Until the first delta; `None` for a plain chat.
    pub first_token_ms: Option<f64>,
    /// Until the response was complete.
    pub total_ms: f64,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// The remaining quota by the provider's headers.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("hi").with("rate_limits", json!({"requests_remaining": 59, "reset_ms": 1000}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
/// let limits = response.rate_limits.expect("the provider has limits");
/// assert_eq!((limits.requests_remaining, limits.tokens_remaining), (Some(59), None));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RateLimits {
    /// Requests until the limit.
    pub requests_remaining: Option<u64>,
    /// Tokens until the limit.
    pub tokens_remaining: Option<u64>,
    /// Milliseconds until the first of the provider's windows is reset.
    pub reset_ms: Option<u64>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// The record of a request: its attempts, and how the provider's request differs from it.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let reply = Reply::text("hi").with("receipt", json!({"served_model": "azure/gpt-4o", "fallback": true}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
/// let receipt = response.receipt.expect("a worker gives one");
/// assert!(receipt.fallback);
/// assert_eq!(receipt.served_model.as_deref(), Some("azure/gpt-4o"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Receipt {
    /// The requested model.
    pub requested_model: String,
    /// The model that served the request.
    pub served_model: Option<String>,
    /// The id of the deployment that served the request, in the worker's config.
    pub deployment: Option<String>,
    /// The calls to providers, in order.
    pub attempts: Vec<Attempt>,
    /// Whether another model than the requested one served the request.
    pub fallback: bool,
    /// Parameters that the provider did not get unchanged; `None` if the provider's request could not be seen.
    pub dropped: Option<Vec<Change>>,
    /// Members of the provider's request that the caller did not set; `None` if that request could not be seen.
    pub added: Option<Vec<Addition>>,
    /// Members of the provider's response that the result has no name for, by dotted path; they are in the message.
    pub kept: Vec<String>,
    /// The chat path that served the request.
    pub engine: Option<Object>,
    /// What [`ChatRequest::fit`](super::ChatRequest::fit) did to the messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fitted>,
    /// Why nothing was read from the provider's cache, with [`ChatRequest::cache_auto`](super::ChatRequest::cache_auto).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheMiss>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// One call to a provider.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let attempts = json!([{"outcome": "rate_limited", "status": 429, "ms": 80.0}, {"outcome": "ok", "status": 200, "ms": 800.0}]);
/// let reply = Reply::text("hi").with("receipt", json!({"attempts": attempts}));
/// let bridge = Mock::new().reply(reply).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
/// let attempts = response.receipt.expect("a worker gives one").attempts;
/// assert_eq!(attempts[0].outcome, "rate_limited");
/// assert_eq!(attempts[1].status, Some(200));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Attempt {
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The provider's HTTP status.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// The model that was called.
    pub model: Option<String>,
    /// Its provider.
    pub provider: Option<String>,
    /// The deployment's id in the worker's config.
    pub deployment: Option<String>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A parameter that the provider did not get unchanged.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let receipt = json!({"dropped": [{"param": "seed", "change": "dropped"}]});
/// let bridge = Mock::new().reply(Reply::text("hi").with("receipt", receipt)).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello").seed(7)).await?;
/// for change in response.receipt.and_then(|receipt| receipt.dropped).unwrap_or_default() {
///     assert_eq!((change.param.as_str(), change.change.as_str()), ("seed", "dropped"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Change {
    /// The parameter.
    pub param: String,
    /// Whether it was dropped or rewritten.
    pub change: ChangeKind,
    /// The new value of a rewritten parameter.
    pub sent: Option<Value>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A member of the provider's request that the caller did not give.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let receipt = json!({"added": [{"param": "max_tokens", "sent": 4096}]});
/// let bridge = Mock::new().reply(Reply::text("hi").with("receipt", receipt)).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("hello")).await?;
/// for addition in response.receipt.and_then(|receipt| receipt.added).unwrap_or_default() {
///     assert_eq!((addition.param.as_str(), addition.sent), ("max_tokens", Some(json!(4096))));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Addition {
    /// The parameter.
    pub param: String,
    /// Its value; `None` for an object or a list.
    pub sent: Option<Value>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A piece of a streamed response, in OpenAI's shape. Joined, the pieces equal the final [`ChatResponse`].
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let deltas = [json!({"reasoning_content": "Hm."}), json!({"content": "42"})];
/// let bridge = Mock::new().reply(Reply::text("42").deltas(deltas)).spawn().await?;
/// let mut stream = bridge.chat_stream(ChatRequest::new("any/model").user("6 times 7?")).await?;
/// let delta = stream.next().await.expect("a delta")?;
/// assert_eq!((delta.reasoning_content.as_deref(), delta.text()), (Some("Hm."), ""));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatDelta {
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// More of what the model thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// More of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// More of the tool calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta>>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

impl ChatDelta {
    /// The new text, empty if there is none.
    #[must_use]
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }

    /// Bytes of text in it.
    pub(crate) fn size(&self) -> usize {
        let calls = self.tool_calls.iter().flatten();
        self.text().len()
            + self.reasoning_content.as_deref().unwrap_or_default().len()
            + self.refusal.as_deref().unwrap_or_default().len()
            + calls.filter_map(|call| call.function.arguments.as_deref()).map(str::len).sum::<usize>()
    }

    /// Joins this delta and `next`, which follows it. Returns `next` if it has members that this crate can't join.
    pub(crate) fn join(&mut self, next: ChatDelta) -> Option<ChatDelta> {
        let known = |delta: &ChatDelta| {
            delta.extra.is_empty()
                && delta.tool_calls.iter().flatten().all(|call| call.extra.is_empty() && call.function.extra.is_empty())
        };
        if !known(self) || !known(&next) {
            return Some(next);
        }
        self.absorb(&next);
        None
    }

    /// Appends the text and the tool calls of `next`, which follows it.
    pub(crate) fn absorb(&mut self, next: &ChatDelta) {
        append(&mut self.content, next.content.as_ref());
        append(&mut self.reasoning_content, next.reasoning_content.as_ref());
        append(&mut self.refusal, next.refusal.as_ref());
        for call in next.tool_calls.iter().flatten() {
            let calls = self.tool_calls.get_or_insert_with(Vec::new);
            match calls.iter_mut().find(|other| other.index == call.index) {
                Some(other) => {
                    other.id = other.id.take().or_else(|| call.id.clone());
                    other.r#type = other.r#type.take().or_else(|| call.r#type.clone());
                    other.function.name = other.function.name.take().or_else(|| call.function.name.clone());
                    append(&mut other.function.arguments, call.function.arguments.as_ref());
                }
                None => calls.push(call.clone()),
            }
        }
    }
}

fn append(text: &mut Option<String>, more: Option<&String>) {
    match (text.as_mut(), more) {
        (Some(text), Some(more)) => text.push_str(more),
        (None, more) => *text = more.cloned(),
        (Some(_), None) => {}
    }
}

/// A piece of the tool call at [`index`](ToolCallDelta::index) of the response's `tool_calls`.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply(Reply::tool_call("weather", json!({"city": "Brno"}))).spawn().await?;
/// let mut stream = bridge.chat_stream(ChatRequest::new("any/model").user("weather?")).await?;
/// let delta = stream.next().await.expect("a delta")?;
/// let call = &delta.tool_calls.expect("a piece of a call")[0];
/// assert_eq!((call.index, call.id.as_deref()), (0, Some("call_0")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolCallDelta {
    /// Which call.
    pub index: usize,
    /// With its first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// With its first piece.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Name and arguments.
    #[serde(default)]
    pub function: FunctionDelta,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A piece of a tool call's function.
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply(Reply::tool_call("weather", json!({"city": "Brno"}))).spawn().await?;
/// let mut stream = bridge.chat_stream(ChatRequest::new("any/model").user("weather?")).await?;
/// let delta = stream.next().await.expect("a delta")?;
/// let call = &delta.tool_calls.expect("a piece of a call")[0];
/// assert_eq!(call.function.name.as_deref(), Some("weather"));
/// assert_eq!(call.function.arguments.as_deref(), Some(r#"{"city":"Brno"}"#));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionDelta {
    /// With its first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delta(value: Value) -> ChatDelta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn unknown_enum_values_are_kept() {
        let reason: FinishReason = serde_json::from_value(json!("bored")).unwrap();
        assert_eq!(reason, FinishReason::Other("bored".into()));
        assert_eq!(serde_json::to_value(reason).unwrap(), json!("bored"));
    }

    #[test]
    fn joined_deltas_say_the_same() {
        let mut first =
            delta(json!({"content": "Hel", "tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]}));
        let next = delta(json!({"content": "lo", "reasoning_content": "hm", "tool_calls": [
            {"index": 0, "function": {"arguments": "}"}}, {"index": 1, "id": "b", "function": {"name": "g"}}]}));
        assert_eq!(first.join(next), None);
        let whole = json!({"content": "Hello", "reasoning_content": "hm", "tool_calls": [
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}, {"index": 1, "id": "b", "function": {"name": "g"}}]});
        assert_eq!(first, delta(whole));
        assert_eq!(first.size(), 9);
    }

    #[test]
    fn deltas_with_unknown_members_are_not_joined() {
        let mut first = delta(json!({"content": "a"}));
        assert!(first.join(delta(json!({"content": "b", "audio": "?"}))).is_some());
        assert_eq!(first.text(), "a");
    }
}
