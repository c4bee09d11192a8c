//! The messages of a conversation.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::{Object, object};

open_enum! {
    /// The author of a message.
    ///
    /// ```
    /// use omni_bridge_client::{Message, Role};
    ///
    /// assert_eq!(Message::system("Be terse.").role(), Some(Role::System));
    /// assert_eq!(Message::new(Role::Developer, "Be terse.").role(), Some(Role::Developer));
    /// ```
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
///
/// ```
/// use omni_bridge_client::{ChatRequest, Message};
///
/// let history = [Message::user("hello"), Message::assistant("hi"), Message::user("and now?").with("name", "Ann")];
/// let request = ChatRequest::new("openai/gpt-4o-mini").system("Be terse.").messages(history);
/// assert_eq!(request.messages[3].text().as_deref(), Some("and now?"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub Object);

impl Message {
    /// A message with a role and content.
    #[allow(clippy::needless_pass_by_value, reason = "a role is named in the call")]
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Message(object([("role", Value::from(role.as_str())), ("content", content.into().0)]))
    }

    /// The host's instructions.
    pub fn system(content: impl Into<Content>) -> Self {
        Message::new(Role::System, content)
    }

    /// A message of the user.
    pub fn user(content: impl Into<Content>) -> Self {
        Message::new(Role::User, content)
    }

    /// A message of the model, if [`ChatResponse::message`](crate::ChatResponse::message) is not available.
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

    /// Its author.
    pub fn role(&self) -> Option<Role> {
        self.0.get("role").and_then(Value::as_str).map(Role::from)
    }

    /// Its text, joined if it is in parts; `None` when it has no content.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self.0.get("content")? {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => Some(parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()),
            _ => None,
        }
    }
}

/// The content of a message: a text or a list of [`ContentPart`]s.
///
/// ```
/// use omni_bridge_client::{Content, ContentPart, Message};
///
/// let text = Content::from("hello");
/// let parts = Content::from(vec![ContentPart::text("What is this?"), ContentPart::image_bytes(b"\x89PNG...")]);
/// assert_eq!(Message::user(text).text().as_deref(), Some("hello"));
/// assert_eq!(Message::user(parts).text().as_deref(), Some("What is this?"));
/// ```
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
///
/// ```
/// use omni_bridge_client::{ChatRequest, ContentPart};
///
/// let parts = vec![
///     ContentPart::text("Compare these."),
///     ContentPart::image_url("https://example.com/cat.png"),
///     ContentPart::file_bytes(b"%PDF-1.7 ...", "application/pdf", "cat.pdf"),
/// ];
/// let request = ChatRequest::new("openai/gpt-4o-mini").user(parts);
/// ```
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

    /// An image from its bytes. The type is read from them: PNG, JPEG, GIF and WebP.
    #[must_use]
    pub fn image_bytes(bytes: &[u8]) -> Self {
        ContentPart::image_url(data_url(image_type(bytes), bytes))
    }

    /// An image from a file.
    pub fn image_file(path: impl AsRef<Path>) -> std::io::Result<Self> {
        Ok(ContentPart::image_bytes(&std::fs::read(path)?))
    }

    /// A file from its bytes, with a media type such as `application/pdf`.
    pub fn file_bytes(bytes: &[u8], media_type: &str, filename: impl Into<String>) -> Self {
        ContentPart::file(data_url(media_type, bytes), filename)
    }

    /// A file from a path. The type is that of its extension: PDF, plain text and JSON; others are `application/octet-stream`.
    pub fn file_path(path: impl AsRef<Path>) -> std::io::Result<Self> {
        let path = path.as_ref();
        let media_type = match path.extension().and_then(|extension| extension.to_str()) {
            Some("pdf") => "application/pdf",
            Some("txt" | "md" | "csv") => "text/plain",
            Some("json") => "application/json",
            _ => "application/octet-stream",
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(ContentPart::file_bytes(&std::fs::read(path)?, media_type, name))
    }

    /// A file as a `data:` or `https:` URL.
    pub fn file(file_data: impl Into<String>, filename: impl Into<String>) -> Self {
        let file = json!({"file_data": file_data.into(), "filename": filename.into()});
        ContentPart(object([("type", Value::from("file")), ("file", file)]))
    }
}

fn image_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => "image/png",
    }
}

fn data_url(media_type: &str, bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut url = String::with_capacity(media_type.len() + 16 + bytes.len().div_ceil(3) * 4);
    url.push_str("data:");
    url.push_str(media_type);
    url.push_str(";base64,");
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| (group << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let digit = DIGITS.get((group >> (18 - 6 * position)) as usize & 63).copied().unwrap_or_default();
            url.push(if position <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    url
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn bytes_become_data_urls() {
        for (text, base64) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(data_url("text/plain", text.as_bytes()), format!("data:text/plain;base64,{base64}"));
        }
        let url = |part: ContentPart| part.0["image_url"]["url"].as_str().unwrap().to_owned();
        assert_eq!(url(ContentPart::image_bytes(b"\xFF\xD8\xFF\xE0")), "data:image/jpeg;base64,/9j/4A==");
        assert!(url(ContentPart::image_bytes(b"RIFF....WEBPVP8 ")).starts_with("data:image/webp;"));
        let part = ContentPart::file_path(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        assert_eq!(part.0["file"]["filename"], "README.md");
        assert!(part.0["file"]["file_data"].as_str().unwrap().starts_with("data:text/plain;base64,"));
        assert!(ContentPart::image_file("/no/such/file").is_err());
    }

    #[test]
    fn a_message_tells_its_text() {
        assert_eq!(Message::user("hi").text().as_deref(), Some("hi"));
        let parts = vec![ContentPart::text("a"), ContentPart::image_url("data:,"), ContentPart::text("b")];
        assert_eq!(Message::user(parts).text().as_deref(), Some("ab"));
        assert_eq!(Message(object([("content", Value::Null)])).text(), None);
        assert_eq!(Message::tool("1", "x").role(), Some(Role::Tool));
    }
}
