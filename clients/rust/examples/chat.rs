//! One prompt, one response. `cargo run --example chat -- openai/gpt-4o-mini "Why is the sky blue?"`
use omni_bridge_client::{Bridge, ChatRequest, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let model = words.next().unwrap_or_else(|| "offline/echo".into());
    let bridge = Bridge::spawn().await?;
    let response = bridge.chat(ChatRequest::new(model).user(words.next().unwrap_or_else(|| "hello".into()))).await?;
    println!("{}", response.text());
    bridge.shutdown().await;
    Ok(())
}
