//! What a model may call, and its calls.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::agent::none_if_null;
use super::{Object, Problem, Repair};
use crate::error::{Error, ErrorKind, Result};

/// A function that the model may ask to be called.
///
/// ```
/// use omni_bridge_client::{ChatRequest, Tool};
/// use serde_json::json;
///
/// let weather = Tool::new("weather").description("The weather in a city").parameters(json!({
///     "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
/// }));
/// let request = ChatRequest::new("openai/gpt-4o-mini").user("weather in Brno?").tool(weather);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tool {
    /// `"function"`, the only type there is.
    #[serde(rename = "type")]
    pub r#type: String,
    /// The function.
    pub function: FunctionTool,
    /// Anthropic's mark that what comes up to here is to be cached: `{"type": "ephemeral"}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Members without a name here.
    #[serde(flatten)]
    pub extra: Object,
}

/// The function of a [`Tool`].
///
/// ```
/// use omni_bridge_client::Tool;
///
/// let tool = Tool::new("weather").description("The weather in a city").strict(true);
/// assert_eq!((tool.function.name.as_str(), tool.function.strict), ("weather", Some(true)));
/// assert_eq!(tool.function.parameters, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionTool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON Schema of its arguments. The order of properties is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Whether the provider must hold the model to the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Members without a name here.
    #[serde(flatten)]
    pub extra: Object,
}

impl Tool {
    /// A tool without parameters yet.
    pub fn new(name: impl Into<String>) -> Self {
        let function = FunctionTool { name: name.into(), ..FunctionTool::default() };
        Tool { r#type: "function".to_owned(), function, cache_control: None, extra: Object::new() }
    }

    /// What it does, for the model.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.function.description = Some(description.into());
        self
    }

    /// The JSON Schema of its arguments.
    #[must_use]
    pub fn parameters(mut self, schema: impl Into<Value>) -> Self {
        self.function.parameters = Some(schema.into());
        self
    }

    /// Whether the provider must hold the model to the schema.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.function.strict = Some(strict);
        self
    }

    /// Anthropic's mark that what comes up to here is to be cached: `{"type": "ephemeral"}`.
    #[must_use]
    pub fn cache_control(mut self, mark: impl Into<Value>) -> Self {
        self.cache_control = Some(mark.into());
        self
    }
}

/// Whether the model may, must or must not call tools.
///
/// ```
/// use omni_bridge_client::{ChatRequest, Tool, ToolChoice};
///
/// let request = ChatRequest::new("openai/gpt-4o-mini").user("weather in Brno?").tool(Tool::new("weather"));
/// let request = request.tool_choice(ToolChoice::Function("weather".into()));
/// assert_eq!(serde_json::to_value(&request).unwrap()["tool_choice"]["function"]["name"], "weather");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ToolChoice {
    /// It must not.
    None,
    /// It may; the default where there are tools.
    Auto,
    /// It must call one.
    Required,
    /// It must call the one with this name.
    Function(String),
    /// A value that this crate has no name for.
    Other(Value),
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            ToolChoice::None => serializer.serialize_str("none"),
            ToolChoice::Auto => serializer.serialize_str("auto"),
            ToolChoice::Required => serializer.serialize_str("required"),
            ToolChoice::Function(name) => json!({"type": "function", "function": {"name": name}}).serialize(serializer),
            ToolChoice::Other(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let name = value.pointer("/function/name").and_then(Value::as_str);
        Ok(match (value.as_str(), name) {
            (Some("none"), _) => ToolChoice::None,
            (Some("auto"), _) => ToolChoice::Auto,
            (Some("required"), _) => ToolChoice::Required,
            (_, Some(name)) => ToolChoice::Function(name.to_owned()),
            _ => ToolChoice::Other(value),
        })
    }
}

/// A tool call of the model. Return its result with [`Message::tool`](crate::Message::tool).
///
/// ```
/// use omni_bridge_client::{ChatRequest, Message, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply(Reply::tool_call("weather", json!({"city": "Brno"}))).spawn().await?;
/// let mut request = ChatRequest::new("any/model").user("weather?");
/// let response = bridge.chat(&request).await?;
/// request = request.message(response.message);
/// for call in response.tool_calls {
///     assert_eq!((call.name(), call.arguments()?), ("weather", json!({"city": "Brno"})));
///     request = request.message(Message::tool(call.id, "sunny"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ToolCall {
    /// What the result must refer to.
    pub id: String,
    /// `"function"`.
    #[serde(rename = "type")]
    pub r#type: String,
    /// Which function, and its arguments.
    pub function: FunctionCall,
    /// Where the call does not fit the tools of the request.
    #[serde(deserialize_with = "none_if_null", skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What of the arguments was repaired.
    #[serde(deserialize_with = "none_if_null", skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<Repair>,
    /// Members without a name here.
    #[serde(flatten)]
    pub extra: Object,
}

/// The function of a [`ToolCall`].
///
/// ```
/// use omni_bridge_client::{ChatRequest, mock::{Mock, Reply}};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().reply(Reply::tool_call("weather", json!({"city": "Brno"}))).spawn().await?;
/// let response = bridge.chat(ChatRequest::new("any/model").user("weather?")).await?;
/// let function = &response.tool_calls[0].function;
/// assert_eq!((function.name.as_str(), function.arguments.as_str()), ("weather", r#"{"city":"Brno"}"#));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// JSON text, as the model wrote it.
    pub arguments: String,
    /// Members without a name here.
    #[serde(flatten)]
    pub extra: Object,
}

impl ToolCall {
    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.function.name
    }

    /// Whether the call fits a tool of the request: it may be run.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    /// The arguments as JSON. Fails only for a call in [`Partial`](crate::Partial): a whole response's arguments are valid JSON.
    pub fn arguments(&self) -> Result<Value> {
        self.parse()
    }

    /// The arguments as a type of yours. What the model got wrong is in the error's message, fit to be its tool result.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.function.arguments)
            .map_err(|error| Error::new(ErrorKind::Parse, format!("the arguments of {} do not fit: {error}", self.function.name)))
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_order_of_a_schemas_properties_is_kept() {
        let line = r#"{"type":"object","properties":{"z":{},"a":{},"m":{}}}"#;
        let tool = Tool::new("f").parameters(serde_json::from_str::<Value>(line).unwrap());
        assert!(serde_json::to_string(&tool).unwrap().contains(line));
    }

    #[test]
    fn tool_choices_are_read_back_as_written() {
        for choice in [ToolChoice::None, ToolChoice::Auto, ToolChoice::Required, ToolChoice::Function("f".into())] {
            let wire = serde_json::to_value(&choice).unwrap();
            assert_eq!(serde_json::from_value::<ToolChoice>(wire).unwrap(), choice);
        }
    }

    #[test]
    fn an_unknown_tool_choice_is_kept() {
        let choice: ToolChoice = serde_json::from_value(json!({"type": "dice"})).unwrap();
        assert_eq!(serde_json::to_value(choice).unwrap(), json!({"type": "dice"}));
    }

    #[test]
    fn arguments_parse_into_a_type_or_say_what_is_wrong() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Place {
            city: String,
        }
        let function = FunctionCall { name: "weather".into(), arguments: r#"{"city":"Brno"}"#.into(), ..FunctionCall::default() };
        let mut call = ToolCall { function, ..ToolCall::default() };
        assert_eq!(call.parse::<Place>().unwrap(), Place { city: "Brno".into() });
        assert_eq!(call.arguments().unwrap(), json!({"city": "Brno"}));
        call.function.arguments = r#"{"town":"Brno"}"#.into();
        let error = call.parse::<Place>().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Parse);
        assert!(error.message().contains("weather") && error.message().contains("city"), "{error}");
    }
}
