//! A response that fits its schema, or the reasons why not. `cargo run --example checked -- openai/gpt-4o-mini "Where is the Louvre?"`
use omni_bridge_client::{Bridge, ChatRequest, Result};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let model = words.next().unwrap_or_else(|| "offline/tools".into());
    let question = words.next().unwrap_or_else(|| "Where is the Louvre?".into());
    let bridge = Bridge::spawn().await?;

    let city = json!({"type": "object", "properties": {"city": {"type": "string"}, "country": {"type": "string"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "place", "schema": city}});
    let request = ChatRequest::new(model).user(question).response_format(format).repair_json().ensure(3);
    let response = bridge.chat(request).await?;
    for repair in &response.repaired {
        println!("repaired: {}", repair.change);
    }
    for problem in &response.problems {
        println!("still wrong at {:?}: {}", problem.path, problem.reason);
    }
    let calls = response.receipt.as_ref().map_or(0, |receipt| receipt.attempts.len());
    println!("{} ({calls} calls of a provider)", response.text());
    bridge.shutdown().await;
    Ok(())
}
