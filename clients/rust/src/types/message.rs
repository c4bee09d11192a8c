//! What is said in a conversation.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::{Object, object};

open_enum! {
    /// Who says a message.
    Role {
        /// The host's instructions.
        System = "system",
        /// The same, as newer OpenAI models name it.
        Developer = "developer",
        /// The person, or the agent in its place.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// A tool's result.
        Tool = "tool",
    }
}

/// One message of a conversation: the JSON object itself, so that what came from a provider goes back to it unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub Object);

impl Message {
    /// A message with a role and content.
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Message(object([("role", Value::from(role.as_str())), ("content", content.into().0)]))
    }

    /// The host's instructions.
    pub fn system(content: impl Into<Content>) -> Self {
        Message::new(Role::System, content)
    }

    /// What the user says.
    pub fn user(content: impl Into<Content>) -> Self {
        Message::new(Role::User, content)
    }

    /// What the model said, when it is not at hand as [`ChatResponse::message`](crate::ChatResponse::message).
    pub fn assistant(content: impl Into<Content>) -> Self {
        Message::new(Role::Assistant, content)
    }

    /// The result of the tool call with this id.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<Content>) -> Self {
        Message::new(Role::Tool, content).with("tool_call_id", tool_call_id.into())
    }

    /// The same message with one more member, such as `name` or `cache_control`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Who says it.
    pub fn role(&self) -> Option<Role> {
        self.0.get("role").and_then(Value::as_str).map(Role::from)
    }

    /// Its text, joined if it is in parts; `None` when it has no content.
    pub fn text(&self) -> Option<String> {
        match self.0.get("content")? {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => Some(parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()),
            _ => None,
        }
    }
}

/// What a message says: a text or a list of [`ContentPart`]s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(Value);

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Content(Value::from(text))
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Content(Value::from(text))
    }
}

impl From<&String> for Content {
    fn from(text: &String) -> Self {
        Content(Value::from(text.as_str()))
    }
}

impl From<Vec<ContentPart>> for Content {
    fn from(parts: Vec<ContentPart>) -> Self {
        Content(parts.into_iter().map(|part| Value::Object(part.0)).collect())
    }
}

/// A part of a message's content, as a JSON object in OpenAI's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentPart(pub Object);

impl ContentPart {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        ContentPart(object([("type", Value::from("text")), ("text", Value::from(text.into()))]))
    }

    /// An image at a `data:` or `https:` URL.
    pub fn image_url(url: impl Into<String>) -> Self {
        ContentPart(object([("type", Value::from("image_url")), ("image_url", json!({"url": url.into()}))]))
    }

    /// Base64 audio in a format such as `wav` or `mp3`.
    pub fn input_audio(data: impl Into<String>, format: impl Into<String>) -> Self {
        let audio = json!({"data": data.into(), "format": format.into()});
        ContentPart(object([("type", Value::from("input_audio")), ("input_audio", audio)]))
    }

    /// A file as a `data:` or `https:` URL.
    pub fn file(file_data: impl Into<String>, filename: impl Into<String>) -> Self {
        let file = json!({"file_data": file_data.into(), "filename": filename.into()});
        ContentPart(object([("type", Value::from("file")), ("file", file)]))
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_message_tells_its_text() {
        assert_eq!(Message::user("hi").text().as_deref(), Some("hi"));
        let parts = vec![ContentPart::text("a"), ContentPart::image_url("data:,"), ContentPart::text("b")];
        assert_eq!(Message::user(parts).text().as_deref(), Some("ab"));
        assert_eq!(Message(object([("content", Value::Null)])).text(), None);
        assert_eq!(Message::tool("1", "x").role(), Some(Role::Tool));
    }
}
