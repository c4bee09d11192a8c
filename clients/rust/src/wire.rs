//! A chat's params as they are sent: the caller's request, and what the bridge adds to it.
//!
//! Owns the additions. Refuses to change the request: a conversation is long, and a copy of it is what a call would cost most.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::types::{ChatRequest, Deadlines, Object};

pub(crate) struct ChatParams<'a> {
    pub(crate) request: &'a ChatRequest,
    pub(crate) stream: bool,
    /// For a request without deadlines.
    pub(crate) deadlines: Option<Deadlines>,
    /// For a request without a trace context in its `_meta`.
    pub(crate) trace: Object,
}

/// The request with the members that it lacks.
#[derive(Serialize)]
struct Appended<'a> {
    #[serde(flatten)]
    request: &'a ChatRequest,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadlines: Option<Deadlines>,
    #[serde(rename = "_meta", skip_serializing_if = "Object::is_empty")]
    trace: &'a Object,
}

impl Serialize for ChatParams<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.request.stream.is_some() || (self.request.meta.is_some() && !self.trace.is_empty()) {
            return self.changed().serialize(serializer); // the members are there already, so they can't be appended
        }
        let deadlines = self.deadlines.filter(|_| self.request.deadlines.is_none());
        Appended { request: self.request, stream: self.stream, deadlines, trace: &self.trace }.serialize(serializer)
    }
}

impl ChatParams<'_> {
    fn changed(&self) -> ChatRequest {
        let mut request = self.request.clone();
        request.stream = self.stream.then_some(true);
        request.deadlines = request.deadlines.or(self.deadlines);
        if !self.trace.is_empty() {
            let meta = request.meta.get_or_insert_with(Object::new);
            for (name, value) in &self.trace {
                let _: &mut Value = meta.entry(name).or_insert_with(|| value.clone());
            }
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(request: &ChatRequest, stream: bool, trace: &Object) -> Value {
        let deadlines = Some(Deadlines { total_ms: Some(5), ..Deadlines::default() });
        serde_json::to_value(ChatParams { request, stream, deadlines, trace: trace.clone() }).unwrap()
    }

    #[test]
    fn additions_come_after_what_the_request_has_and_never_replace_it() {
        let trace: Object = [("traceparent".to_owned(), json!("00-1-2-01"))].into_iter().collect();
        let plain = ChatRequest::new("m").user("{}");
        let base = json!({"model": "m", "messages": [{"role": "user", "content": "{}"}], "deadlines": {"total_ms": 5}});
        assert_eq!(sent(&plain, false, &Object::new()), base);
        let mut wanted = base.clone();
        wanted["stream"] = json!(true);
        wanted["_meta"] = json!({"traceparent": "00-1-2-01"});
        assert_eq!(sent(&plain, true, &trace), wanted);
        let full =
            plain.deadlines(Deadlines { idle_ms: Some(1), ..Deadlines::default() }).meta([("traceparent", "mine"), ("a", "b")]);
        wanted["deadlines"] = json!({"idle_ms": 1});
        wanted["_meta"] = json!({"traceparent": "mine", "a": "b"});
        assert_eq!(sent(&full, true, &trace), wanted);
        let mut set = full;
        set.stream = Some(true);
        assert_eq!(sent(&set, false, &Object::new()).get("stream"), None);
    }
}
