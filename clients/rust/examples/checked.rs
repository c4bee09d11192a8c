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
    println!("{} after {} calls", response.text(), response.receipt.map_or(1, |receipt| receipt.attempts.len().max(1)));
    bridge.shutdown().await;
    Ok(())
}
