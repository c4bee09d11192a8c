//! `POST /responses`, as far as it maps to a chat: texts, images, function tools, JSON schemas, reasoning effort.
//!
//! Nothing is stored, so `previous_response_id` and `conversation` are refused; so are tools that OpenAI runs itself.

#![allow(
    clippy::indexing_slicing,
    reason = "a member that a JSON value lacks reads as null; only values that are objects here are written to"
)]

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::body::{Body, Event, Events};
use super::chat::{facts, id, model, read_request, total_tokens};
use super::{error_object, invalid, now, object, streamed, whole};
use crate::bridge::Bridge;
use crate::error::{Error, Result};
use crate::types::{ChatDelta, ChatResponse, FinishReason, Object, Usage};

pub(super) async fn respond(bridge: &Bridge, body: &Bytes) -> Result<Response<Body>> {
    let params = object(body)?;
    let is_streamed = params.get("stream") == Some(&Value::Bool(true));
    let request = read_request(chat_params(params)?)?;
    let head = Head { id: format!("resp_{:x}", id()), created: now(), model: request.model.clone() };
    if is_streamed {
        let stream = bridge.chat_stream(&request).await?;
        return Ok(streamed(Body::events(stream, Box::new(Items { head, sequence: 0, text: None, calls: Vec::new() })).await?));
    }
    let response = bridge.chat(request).await?;
    Ok(whole(&head.completed(&response)))
}

/// A request's members as those of a chat.
fn chat_params(mut params: Object) -> Result<Object> {
    let mut chat = Object::new();
    let mut messages = Vec::new();
    if let Some(instructions) = params.shift_remove("instructions") {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match params.shift_remove("input") {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => {
            for item in items {
                push_item(&mut messages, item)?;
            }
        }
        _ => return Err(invalid("input: must be a text or a list of items")),
    }
    chat.insert("messages".to_owned(), Value::Array(messages));
    let renamed = [("max_output_tokens", "max_completion_tokens"), ("user", "user"), ("model", "model")];
    let same = ["temperature", "top_p", "parallel_tool_calls", "metadata", "top_logprobs"].map(|name| (name, name));
    for (name, chat_name) in renamed.into_iter().chain(same) {
        if let Some(value) = params.shift_remove(name) {
            chat.insert(chat_name.to_owned(), value);
        }
    }
    if let Some(effort) = params.shift_remove("reasoning").and_then(|mut reasoning| reasoning.get_mut("effort").map(Value::take)) {
        if !effort.is_null() {
            chat.insert("reasoning_effort".to_owned(), effort);
        }
    }
    if let Some(format) = params.shift_remove("text").and_then(|mut text| text.get_mut("format").map(Value::take)) {
        chat.extend(response_format(format));
    }
    if let Some(Value::Array(tools)) = params.shift_remove("tools") {
        let tools = tools.into_iter().map(tool).collect::<Result<Vec<_>>>()?;
        if !tools.is_empty() {
            chat.insert("tools".to_owned(), tools.into());
        }
    }
    if let Some(choice) = params.shift_remove("tool_choice") {
        let choice =
            if choice["type"] == "function" { json!({"type": "function", "function": {"name": choice["name"]}}) } else { choice };
        chat.insert("tool_choice".to_owned(), choice);
    }
    for ignored in ["stream", "stream_options", "store", "include", "truncation", "background", "service_tier"] {
        params.shift_remove(ignored);
    }
    match params.keys().next() {
        None => Ok(chat),
        Some(name) => Err(invalid(format!("{name}: is not served by /responses here; keep the conversation in input"))),
    }
}

fn push_item(messages: &mut Vec<Value>, mut item: Value) -> Result<()> {
    if !item.is_object() {
        return Err(invalid("input: an item must be an object"));
    }
    let kind = item["type"].as_str().unwrap_or("message").to_owned();
    match kind.as_str() {
        "message" => messages.push(json!({"role": item["role"], "content": content(item["content"].take())?})),
        "function_call" => {
            let function = json!({"name": item["name"], "arguments": item["arguments"]});
            let call = json!({"id": item["call_id"], "type": "function", "function": function});
            // Calls of one turn are one message.
            match messages.last_mut().and_then(|last| last.get_mut("tool_calls")).and_then(Value::as_array_mut) {
                Some(calls) => calls.push(call),
                None => messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
            }
        }
        "function_call_output" => {
            let output = match item["output"].take() {
                Value::String(text) => text.into(),
                other => content(other)?,
            };
            messages.push(json!({"role": "tool", "tool_call_id": item["call_id"], "content": output}));
        }
        "reasoning" => {} // OpenAI's own state, which means nothing to another provider
        other => return Err(invalid(format!("input: an item of type {other:?} does not map to a chat"))),
    }
    Ok(())
}

fn content(content: Value) -> Result<Value> {
    let Value::Array(parts) = content else {
        return Ok(content);
    };
    let part = |part: Value| match part["type"].as_str() {
        Some("input_text" | "output_text" | "text") => Ok(json!({"type": "text", "text": part["text"]})),
        Some("refusal") => Ok(json!({"type": "text", "text": part["refusal"]})),
        Some("input_image") if part["image_url"].is_string() => {
            Ok(json!({"type": "image_url", "image_url": {"url": part["image_url"]}}))
        }
        Some("input_file") if part["file_data"].is_string() => {
            Ok(json!({"type": "file", "file": {"file_data": part["file_data"], "filename": part["filename"]}}))
        }
        _ => Err(invalid(format!("input: a part of type {} does not map to a chat", part["type"]))),
    };
    parts.into_iter().map(part).collect::<Result<Vec<_>>>().map(Value::Array)
}

fn tool(mut tool: Value) -> Result<Value> {
    if tool["type"] != "function" {
        return Err(invalid(format!("tools: {} is run by OpenAI; only functions map to a chat", tool["type"])));
    }
    let function = tool.as_object_mut().map(|function| {
        function.shift_remove("type");
        function.retain(|_, value| !value.is_null());
        std::mem::take(function)
    });
    Ok(json!({"type": "function", "function": function}))
}

fn response_format(mut format: Value) -> Option<(String, Value)> {
    let name = "response_format".to_owned();
    match format["type"].as_str()? {
        "json_object" => Some((name, json!({"type": "json_object"}))),
        "json_schema" => {
            let members = format.as_object_mut()?;
            members.shift_remove("type");
            members.retain(|_, value| !value.is_null());
            Some((name, json!({"type": "json_schema", "json_schema": members})))
        }
        _ => None,
    }
}

struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn response(&self, status: &str, output: &[Value]) -> Value {
        json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "model": self.model,
            "output": output, "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
            "parallel_tool_calls": true, "temperature": null, "top_p": null, "tool_choice": "auto", "tools": [], "usage": null,
        })
    }

    fn completed(&self, response: &ChatResponse) -> Value {
        let is_cut = response.finish_reason == Some(FinishReason::Length);
        let mut output = Vec::new();
        if !response.text().is_empty() {
            output.push(self.message(response.text()));
        }
        output.extend(response.tool_calls.iter().enumerate().map(|(index, call)| {
            function_call(&self.call_id(index), &call.id, call.name(), &call.function.arguments, "completed")
        }));
        let mut whole = self.response(if is_cut { "incomplete" } else { "completed" }, &output);
        if is_cut {
            whole["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        whole["model"] = model(response).into();
        whole["usage"] = response.usage.as_ref().map_or(Value::Null, usage);
        whole["omni_bridge"] = facts(response);
        whole
    }

    fn message(&self, text: &str) -> Value {
        let content = [json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})];
        json!({"type": "message", "id": self.message_id(), "role": "assistant", "status": "completed", "content": content})
    }

    fn message_id(&self) -> String {
        self.id.replace("resp_", "msg_")
    }

    fn call_id(&self, index: usize) -> String {
        format!("{}_{index}", self.id.replace("resp_", "fc_"))
    }
}

fn function_call(id: &str, call_id: &str, name: &str, arguments: &str, status: &str) -> Value {
    json!({"type": "function_call", "id": id, "call_id": call_id, "name": name, "arguments": arguments, "status": status})
}

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens.unwrap_or_default(),
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens.unwrap_or_default()},
        "output_tokens": usage.output_tokens.unwrap_or_default(),
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens.unwrap_or_default()},
        "total_tokens": total_tokens(usage),
    })
}

/// A stream's events. The message is the first output item once there is text; calls follow in their order.
struct Items {
    head: Head,
    sequence: u64,
    /// The output index of the message.
    text: Option<usize>,
    /// The index of each call in the chat's delta, in the order of output.
    calls: Vec<(usize, usize)>,
}

impl Items {
    fn event(&mut self, name: &'static str, mut value: Value) -> Event {
        value["type"] = name.into();
        value["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        Event::Named(name, value)
    }

    fn next_index(&self) -> usize {
        self.calls.len() + usize::from(self.text.is_some())
    }

    fn text_delta(&mut self, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let id = self.head.message_id();
        let index = self.text.unwrap_or_else(|| self.next_index());
        if self.text.is_none() {
            self.text = Some(index);
            let item = json!({"type": "message", "id": id, "role": "assistant", "status": "in_progress", "content": []});
            events.push(self.event("response.output_item.added", json!({"output_index": index, "item": item})));
            let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
            let value = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
            events.push(self.event("response.content_part.added", value));
        }
        let value = json!({"item_id": id, "output_index": index, "content_index": 0, "delta": text, "logprobs": []});
        events.push(self.event("response.output_text.delta", value));
        events
    }
}

impl Events for Items {
    fn first(&mut self) -> Vec<Event> {
        let response = self.head.response("in_progress", &[]);
        vec![self.event("response.created", json!({"response": response}))]
    }

    fn delta(&mut self, delta: ChatDelta) -> Vec<Event> {
        let mut events = if delta.text().is_empty() { Vec::new() } else { self.text_delta(delta.text()) };
        for call in delta.tool_calls.into_iter().flatten() {
            let known = self.calls.iter().find(|(index, _)| *index == call.index).map(|(_, output)| *output);
            let index = known.unwrap_or_else(|| self.next_index());
            let id = self.head.call_id(call.index);
            if known.is_none() {
                self.calls.push((call.index, index));
                let (call_id, name) = (call.id.unwrap_or_default(), call.function.name.unwrap_or_default());
                let item = function_call(&id, &call_id, &name, "", "in_progress");
                events.push(self.event("response.output_item.added", json!({"output_index": index, "item": item})));
            }
            if let Some(arguments) = call.function.arguments.filter(|arguments| !arguments.is_empty()) {
                let value = json!({"item_id": id, "output_index": index, "delta": arguments});
                events.push(self.event("response.function_call_arguments.delta", value));
            }
        }
        events
    }

    fn end(&mut self, response: &ChatResponse) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(index) = self.text {
            let (id, item) = (self.head.message_id(), self.head.message(response.text()));
            let value = json!({"item_id": id, "output_index": index, "content_index": 0, "text": response.text(), "logprobs": []});
            events.push(self.event("response.output_text.done", value));
            let value = json!({"item_id": id, "output_index": index, "content_index": 0, "part": item["content"][0]});
            events.push(self.event("response.content_part.done", value));
            events.push(self.event("response.output_item.done", json!({"output_index": index, "item": item})));
        }
        for (call_index, index) in self.calls.clone() {
            let Some(call) = response.tool_calls.get(call_index) else { continue };
            let (id, arguments) = (self.head.call_id(call_index), &call.function.arguments);
            let value = json!({"item_id": id, "output_index": index, "name": call.name(), "arguments": arguments});
            events.push(self.event("response.function_call_arguments.done", value));
            let item = function_call(&id, &call.id, call.name(), arguments, "completed");
            events.push(self.event("response.output_item.done", json!({"output_index": index, "item": item})));
        }
        let whole = self.head.completed(response);
        let name = if whole["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
        events.push(self.event(name, json!({"response": whole})));
        events
    }

    fn error(&mut self, error: &Error) -> Vec<Event> {
        let mut response = self.head.response("failed", &[]);
        let object = error_object(error);
        response["error"] = json!({"code": object["code"], "message": object["message"]});
        vec![self.event("response.failed", json!({"response": response}))]
    }
}
