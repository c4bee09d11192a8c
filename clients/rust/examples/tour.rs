//! Spawn, chat, stream, tools, cancel. `cargo run --example tour`; with a provider's key also `-- openai/gpt-4o-mini`.
use omni_bridge_client::{Bridge, ChatRequest, Message, Result, Tool};
use serde_json::json;

#[derive(serde::Deserialize)]
struct Square {
    n: i64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "offline/tools".into());
    let bridge = Bridge::spawn().await?; // the worker beside this executable, or omni-bridge on PATH

    // One tool call, its result, and the final response. `message` goes back as it is: it has what the provider needs to see again.
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let mut request = ChatRequest::new(&model).user("What is the square of 12?").tool(Tool::new("square").parameters(schema));
    let response = bridge.chat(request.clone()).await?;
    request = request.message(response.message);
    for call in &response.tool_calls {
        let n = call.parse::<Square>()?.n;
        request = request.message(Message::tool(&call.id, (n * n).to_string()));
    }

    // A stream. Dropping it cancels the request at the provider; `cancel` also waits until the connection is closed.
    let mut stream = bridge.chat_stream(request.clone()).await?;
    while let Some(delta) = stream.next().await {
        print!("{}", delta?.text());
    }
    println!("\n{:?} USD", stream.finish().await?.cost_usd); // the whole response: text, tool calls, usage, cost
    let cancelled = bridge.chat_stream(request).await?.cancel().await;
    println!("{}", cancelled.is_err_and(|error| error.upstream_closed() == Some(true)));
    bridge.shutdown().await;
    Ok(())
}
