//! An agent of 20 turns whose prompt is cached. `cargo run --example cached_agent -- anthropic/claude-sonnet-4-5`
use omni_bridge_client::{Bridge, ChatRequest, Message, Result, Tool};
use serde_json::json;

const TURNS: usize = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "offline/tools".into());
    let bridge = Bridge::spawn().await?;
    let path = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    let read = Tool::new("read").description("Reads a file").parameters(path);
    let rules = "You read files, one after the other, and never guess what is in them. ".repeat(100);
    let mut request = ChatRequest::new(model).system(rules).user("Read all files").tool(read).cache_auto();

    let (mut input, mut cached, mut saved) = (0, 0, 0.0);
    for turn in 0..TURNS {
        let response = bridge.chat(&request).await?;
        let usage = response.usage.clone().unwrap_or_default();
        input += usage.input_tokens.unwrap_or_default();
        cached += usage.cached_input_tokens.unwrap_or_default();
        saved += response.cache.as_ref().and_then(|cache| cache.saved_usd).unwrap_or_default();
        let missed = response.receipt.as_ref().and_then(|receipt| receipt.cache.as_ref()?.missed.as_deref());
        println!("turn {turn}: {}", missed.map_or("read from the cache".to_owned(), |reason| format!("missed: {reason}")));
        request = request.message(response.message.clone());
        for call in &response.tool_calls {
            request = request.message(Message::tool(&call.id, format!("file {turn}: {}", "let x = y; ".repeat(60))));
        }
        if response.tool_calls.is_empty() {
            request = request.user("Read the next file");
        }
    }
    println!("{cached} of {input} input tokens read from the cache, {saved:.4} USD saved");
    bridge.shutdown().await;
    Ok(())
}
