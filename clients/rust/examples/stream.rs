//! A streamed response and its cost. `cargo run --example stream -- openai/gpt-4o-mini "Write a story"`
use std::io::Write;

use omni_bridge_client::{Bridge, ChatRequest, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let model = words.next().unwrap_or_else(|| "offline/echo".into());
    let question = words.next().unwrap_or_else(|| "one word at a time".into());
    let bridge = Bridge::spawn().await?;

    let mut stream = bridge.chat_stream(ChatRequest::new(model).user(question)).await?;
    while let Some(delta) = stream.next().await {
        print!("{}", delta?.text());
        let _ = std::io::stdout().flush();
    }
    let response = stream.finish().await?;
    let tokens = response.usage.as_ref().and_then(|usage| usage.total_tokens);
    let [tokens, cost] = [tokens.map(|n| n.to_string()), response.cost_usd.map(|usd| format!("{usd} USD"))];
    println!("\n{} tokens, {}", tokens.as_deref().unwrap_or("unknown"), cost.as_deref().unwrap_or("cost unknown"));
    bridge.shutdown().await;
    Ok(())
}
