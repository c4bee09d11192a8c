//! `POST /embeddings`.

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::body::Body;
use super::{invalid, object, whole};
use crate::bridge::Bridge;
use crate::error::Result;
use crate::types::EmbedRequest;

pub(super) async fn respond(bridge: &Bridge, body: &Bytes) -> Result<Response<Body>> {
    let mut params = object(body)?;
    if let Some(input @ Value::String(_)) = params.get_mut("input") {
        *input = json!([input.take()]);
    }
    let request: EmbedRequest = serde_json::from_value(Value::Object(params))
        .map_err(|error| invalid(format!("input must be a text or a list of texts, not of tokens: {error}")))?;
    let model = request.model.clone();
    let embeddings = bridge.embed(request).await?;
    let data: Vec<Value> = (embeddings.embeddings.into_iter().enumerate())
        .map(|(index, embedding)| json!({"object": "embedding", "index": index, "embedding": embedding}))
        .collect();
    let tokens = embeddings.usage.and_then(|usage| usage.input_tokens).unwrap_or_default();
    Ok(whole(&json!({
        "object": "list",
        "data": data,
        "model": embeddings.model.unwrap_or(model),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })))
}
