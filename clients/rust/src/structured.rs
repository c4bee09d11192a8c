//! Responses and tools as types: their JSON Schemas by `schemars`.
//!
//! Owns the form in which providers take a schema. Refuses to repair a response that does not fit.

use std::borrow::Borrow;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{ChatDelta, ChatRequest, Tool};

impl Bridge {
    /// Sends a chat whose response must be a `T`: its JSON Schema goes with the request. A response that does not fit is an error
    /// [`ErrorKind::Parse`] with the text in its [`partial`](Error::partial).
    ///
    /// ```no_run
    /// use omni_bridge_client::{Bridge, ChatRequest};
    ///
    /// #[derive(schemars::JsonSchema, serde::Deserialize)]
    /// struct City {
    ///     name: String,
    ///     /// Inhabitants, in thousands
    ///     size: u32,
    /// }
    ///
    /// # async fn run(bridge: Bridge) -> omni_bridge_client::Result<()> {
    /// let city: City = bridge.chat_as(ChatRequest::new("openai/gpt-4o-mini").user("The largest city of Moravia?")).await?;
    /// println!("{}: {}", city.name, city.size);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn chat_as<T: DeserializeOwned + JsonSchema>(&self, request: impl Borrow<ChatRequest>) -> Result<T> {
        let name =
            T::schema_name().chars().filter(|character| character.is_ascii_alphanumeric() || *character == '_').collect::<String>();
        let schema = json!({"name": name, "schema": strict_schema::<T>(), "strict": true});
        let request = request.borrow().clone().response_format(json!({"type": "json_schema", "json_schema": schema}));
        let response = self.chat(&request).await?;
        serde_json::from_str(response.text()).map_err(|error| {
            let message = format!("the response is not a {name}: {error}; the text is in Error::partial");
            Error::new(ErrorKind::Parse, message)
                .sent(true)
                .with_partial(ChatDelta { content: response.content, ..ChatDelta::default() })
        })
    }
}

impl Tool {
    /// A tool with a type as its parameters. Doc comments of the fields describe them to the model.
    pub fn of<T: JsonSchema>(name: impl Into<String>) -> Self {
        Tool::new(name).parameters(schema::<T>())
    }
}

fn schema<T: JsonSchema>() -> Value {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    if let Some(members) = schema.as_object_mut() {
        members.shift_remove("$schema");
    }
    schema
}

/// As OpenAI's strict mode wants it: every property is required, no other is allowed. An `Option` may still be null.
fn strict_schema<T: JsonSchema>() -> Value {
    let mut schema = schema::<T>();
    make_strict(&mut schema);
    schema
}

fn make_strict(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(names) = members
                .get("properties")
                .and_then(Value::as_object)
                .map(|properties| properties.keys().cloned().collect::<Vec<_>>())
            {
                members.insert("required".to_owned(), names.into());
                members.insert("additionalProperties".to_owned(), false.into());
            }
            members.values_mut().for_each(make_strict);
        }
        Value::Array(items) => items.iter_mut().for_each(make_strict),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema, serde::Deserialize)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct City {
        /// As its inhabitants call it
        name: String,
        mayor: Option<Mayor>,
    }

    #[derive(JsonSchema, serde::Deserialize)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Mayor {
        name: String,
    }

    #[test]
    fn a_strict_schema_requires_every_property_and_allows_no_other() {
        let schema = strict_schema::<City>();
        assert_eq!(schema["required"], json!(["name", "mayor"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["name"]["description"], "As its inhabitants call it");
        assert_eq!(schema["$defs"]["Mayor"]["additionalProperties"], false);
        assert_eq!(schema.get("$schema"), None);
        let tool = Tool::of::<City>("city");
        assert_eq!(tool.function.parameters.unwrap()["required"], json!(["name"]));
    }
}
