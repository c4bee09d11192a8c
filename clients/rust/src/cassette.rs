//! Plays the recorded responses of a cassette in the mock bridge: an agent's tests run on them without Python.
//!
//! Owns the half of the format that a client sees (`wire`), and which exchange a request gets: the n-th for the n-th same request,
//! then the last. Refuses to know the provider's bytes: the worker replays them (`BridgeBuilder::replay`).

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::mock::{Reply, Script};
use crate::types::ChatRequest;

/// Members of a chat's params that no provider receives; two requests may differ in them.
const NOT_COUNTED: &[&str] = &["deadlines", "ensure", "metadata", "repair", "task"];

/// The chats of a cassette, as a [`Script`] for [`Mock::script`](crate::mock::Mock::script).
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use omni_bridge_client::ChatRequest;
/// use omni_bridge_client::mock::{Cassette, Mock};
///
/// let bridge = Mock::new().script(Cassette::open("run.cassette")?).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("openai/gpt-4o-mini").user("hi")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Cassette {
    chats: Vec<(Value, Value)>,
    counts: HashMap<usize, usize>,
}

impl Cassette {
    /// Reads the chats of a cassette. Lines that are cut off, or of another version, are passed over.
    ///
    /// # Errors
    /// The file can't be read, or is not a cassette.
    pub fn open(file: impl AsRef<Path>) -> std::io::Result<Self> {
        Cassette::parse(&std::fs::read_to_string(file)?)
    }

    /// The same for the text of a cassette, such as one that `include_str!` has.
    ///
    /// # Errors
    /// The text is not a cassette.
    pub fn parse(text: &str) -> std::io::Result<Self> {
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
        if lines.next().is_none_or(|head| head.get("cassette") != Some(&json!(1))) {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a cassette of format 1"));
        }
        let chat = |mut line: Value| {
            let is_chat = line.get("exchange") == Some(&json!("chat")) && line.get("wire").is_some_and(Value::is_object);
            let params = line.pointer_mut("/request/params").map(Value::take)?;
            is_chat.then(|| (plain(params), line.get_mut("wire").map(Value::take).unwrap_or_default()))
        };
        Ok(Cassette { chats: lines.filter_map(chat).collect(), counts: HashMap::new() })
    }

    /// The number of chats.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chats.len()
    }

    /// Whether there is no chat.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chats.is_empty()
    }

    fn find(&mut self, wanted: &Value) -> Option<&Value> {
        let same: Vec<usize> =
            self.chats.iter().enumerate().filter(|(_, (params, _))| params == wanted).map(|(at, _)| at).collect();
        let count = self.counts.entry(*same.first()?).or_default();
        let at = same.get(*count).or(same.last())?;
        *count += 1;
        self.chats.get(*at).map(|(_, wire)| wire)
    }
}

impl Script for Cassette {
    fn reply(&mut self, request: &ChatRequest) -> Reply {
        let wanted = counted(request);
        match self.find(&wanted) {
            Some(wire) => recorded(wire),
            None => Reply::recorded(
                Vec::new(),
                "error",
                json!({
                    "code": 1016, "message": "the cassette does not have this request; the mock plays recorded requests only",
                    "data": {"kind": "cassette_miss", "retryable": false, "retry_after_ms": null, "provider": null,
                             "model": request.model, "status": null, "nearest": null},
                }),
            ),
        }
    }
}

/// The members of a request that count.
fn counted(request: &ChatRequest) -> Value {
    let mut params = match serde_json::to_value(request) {
        Ok(Value::Object(params)) => params,
        _ => Map::new(),
    };
    if let Some(Value::Object(more)) = params.remove("provider_params") {
        params.extend(more);
    }
    params.retain(|name, value| !value.is_null() && !NOT_COUNTED.contains(&name.as_str()));
    if params.get("stream") != Some(&Value::Bool(true)) {
        params.remove("stream");
    }
    plain(Value::Object(params))
}

/// `value` with each number as a double, as the canonical form has them: `1` and `1.0` are the same.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Number(number), Value::from),
        Value::Array(members) => members.into_iter().map(plain).collect(),
        Value::Object(members) => members.into_iter().map(|(name, member)| (name, plain(member))).collect(),
        other => other,
    }
}

fn recorded(wire: &Value) -> Reply {
    let pairs = wire.get("deltas").and_then(Value::as_array).cloned().unwrap_or_default();
    let delta = |pair: &Value| match pair.get(1) {
        Some(Value::String(text)) => json!({"content": text}),
        other => other.cloned().unwrap_or_default(),
    };
    let deltas: Vec<Value> = pairs.iter().map(delta).collect();
    if wire.pointer("/error/data/kind") == Some(&json!("cancelled")) {
        return Reply::hang().deltas(deltas);
    }
    let name = if wire.get("error").is_some() { "error" } else { "result" };
    Reply::recorded(deltas, name, wire.get(name).cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Cassette, counted};
    use crate::types::ChatRequest;

    #[test]
    fn a_request_counts_without_its_deadlines_and_with_its_numbers_as_doubles() {
        let request = ChatRequest::new("m").user("hi").temperature(1.0).metadata([("run", "7")]);
        let text = counted(&request).to_string();
        assert!(!text.contains("metadata") && !text.contains("stream") && text.contains("\"temperature\":1.0"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_a_cassette_is_refused() {
        assert!(Cassette::parse("hello").is_err() && Cassette::parse("{\"cassette\":2}").is_err());
        assert!(Cassette::parse("{\"cassette\":1}\n{\"exchange\":\"chat\"").unwrap().is_empty());
    }
}
