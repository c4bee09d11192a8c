//! The crate `async-openai` on a bridge: `cargo run --example async_openai --features async-openai`, with a model's name behind `--`
//! for a real one.

use std::pin::Pin;

use async_openai::types::chat::{ChatCompletionRequestUserMessage, CreateChatCompletionRequest, CreateChatCompletionRequestArgs};
use futures_core::Stream;
use omni_bridge_client::Bridge;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "offline/echo".into());
    let bridge = Bridge::spawn().await?;
    println!("{}", answer(&bridge, &model, "hello there").await?);
    for text in streamed(&bridge, &model, "word by word").await? {
        print!("{text}|");
    }
    println!();
    bridge.shutdown().await;
    Ok(())
}

fn request(model: &str, text: &str) -> Result<CreateChatCompletionRequest, Box<dyn std::error::Error>> {
    let message = ChatCompletionRequestUserMessage::from(text).into();
    Ok(CreateChatCompletionRequestArgs::default().model(model).messages([message]).build()?)
}

/// A whole response.
pub async fn answer(bridge: &Bridge, model: &str, text: &str) -> Result<String, Box<dyn std::error::Error>> {
    let response = bridge.async_openai().chat().create(request(model, text)?).await?;
    let content = response.choices.into_iter().next().and_then(|choice| choice.message.content);
    Ok(content.unwrap_or_default())
}

/// The texts of a streamed one.
pub async fn streamed(bridge: &Bridge, model: &str, text: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut stream = bridge.async_openai().chat().create_stream(request(model, text)?).await?;
    let mut texts = Vec::new();
    while let Some(chunk) = std::future::poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        texts.extend(chunk?.choices.into_iter().filter_map(|choice| choice.delta.content));
    }
    Ok(texts)
}
