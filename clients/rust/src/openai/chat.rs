//! `POST /chat/completions`.

#![allow(
    clippy::indexing_slicing,
    reason = "a member that a JSON value lacks reads as null; only values that are objects here are written to"
)]

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::body::{Body, Event, Events};
use super::{invalid, now, object, streamed, whole};
use crate::bridge::Bridge;
use crate::error::Result;
use crate::types::{ChatDelta, ChatRequest, ChatResponse, FinishReason, Object, Usage};

pub(super) async fn respond(bridge: &Bridge, body: &Bytes) -> Result<Response<Body>> {
    let mut params = object(body)?;
    let is_streamed = params.shift_remove("stream") == Some(Value::Bool(true));
    let options = params.shift_remove("stream_options");
    if params.shift_remove("n").is_some_and(|n| n != 1) {
        return Err(invalid("n: a bridge makes one choice a request; send several requests"));
    }
    params.shift_remove("store"); // nothing is stored in either case
    let request = read_request(params)?;
    if !is_streamed {
        let response = bridge.chat(request).await?;
        return Ok(whole(&completion(&response)));
    }
    let include_usage = options.and_then(|options| options.get("include_usage")?.as_bool()).unwrap_or_default();
    let stream = bridge.chat_stream(&request).await?;
    let chunks = Chunks { created: now(), model: request.model, id: format!("chatcmpl-{:x}", id()), include_usage, is_first: true };
    Ok(streamed(Body::events(stream, Box::new(chunks)).await?))
}

/// The members are OpenAI's. One that the worker does not know is refused by it, with its name.
pub(super) fn read_request(params: Object) -> Result<ChatRequest> {
    serde_json::from_value(Value::Object(params)).map_err(|error| invalid(format!("the request does not fit: {error}")))
}

fn completion(response: &ChatResponse) -> Value {
    let mut message = response.message.0.clone();
    message.entry("content").or_insert(Value::Null);
    message.entry("refusal").or_insert_with(|| response.refusal.clone().into());
    if let Some(reasoning) = &response.reasoning {
        message.entry("reasoning_content").or_insert_with(|| reasoning.as_str().into());
    }
    json!({
        "id": response.id.clone().unwrap_or_else(|| format!("chatcmpl-{:x}", id())),
        "object": "chat.completion",
        "created": now(),
        "model": model(response),
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": response.logprobs,
            "finish_reason": finish_reason(response),
        }],
        "usage": response.usage.as_ref().map(usage),
        "omni_bridge": facts(response),
    })
}

/// What the bridge knows of a response and OpenAI's API has no member for.
pub(super) fn facts(response: &ChatResponse) -> Value {
    json!({"cost_usd": response.cost_usd, "provider": response.provider, "receipt": response.receipt})
}

pub(super) fn model(response: &ChatResponse) -> &str {
    response.model.as_deref().unwrap_or(&response.requested_model)
}

/// OpenAI's clients have an enum here, and reject a whole response for a value that is not in it.
fn finish_reason(response: &ChatResponse) -> &str {
    match &response.finish_reason {
        None | Some(FinishReason::Other(_)) => "stop",
        Some(known) => known.as_str(),
    }
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens.unwrap_or_default(),
        "completion_tokens": usage.output_tokens.unwrap_or_default(),
        "total_tokens": total_tokens(usage),
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens.unwrap_or_default()},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens.unwrap_or_default()},
    })
}

pub(super) fn total_tokens(usage: &Usage) -> u64 {
    let both = usage.input_tokens.unwrap_or_default() + usage.output_tokens.unwrap_or_default();
    usage.total_tokens.unwrap_or(both)
}

/// Unique in this process, and hardly ever repeated in another.
pub(super) fn id() -> u128 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    (time << 16) | u128::from(NEXT.fetch_add(1, Ordering::Relaxed) & 0xFFFF)
}

struct Chunks {
    created: u64,
    model: String,
    id: String,
    include_usage: bool,
    is_first: bool,
}

impl Chunks {
    fn chunk(&self, choices: &Value) -> Value {
        json!({"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model, "choices": choices})
    }
}

impl Events for Chunks {
    fn first(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn delta(&mut self, delta: ChatDelta) -> Vec<Event> {
        let mut delta = serde_json::to_value(delta).unwrap_or_default();
        if let (Value::Object(members), true) = (&mut delta, std::mem::take(&mut self.is_first)) {
            members.insert("role".to_owned(), "assistant".into());
        }
        vec![Event::Data(self.chunk(&json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}])))]
    }

    fn end(&mut self, response: &ChatResponse) -> Vec<Event> {
        let choice = json!({"index": 0, "delta": {}, "logprobs": response.logprobs, "finish_reason": finish_reason(response)});
        let mut events = vec![Event::Data(self.chunk(&json!([choice])))];
        if let (true, Some(counted)) = (self.include_usage, &response.usage) {
            let mut last = self.chunk(&json!([]));
            last["usage"] = usage(counted);
            last["omni_bridge"] = facts(response);
            events.push(Event::Data(last));
        }
        events.push(Event::Done);
        events
    }
}
