//! An agent that records its run, and replays it anywhere. `cargo run --example cassette -- record run.cassette openai/gpt-4o-mini`,
//! then `-- replay run.cassette openai/gpt-4o-mini`, without a key and without network.
use omni_bridge_client::{Bridge, ChatRequest, Result, Tool, ToolSet};
use serde_json::json;

#[derive(serde::Deserialize)]
struct Square {
    n: f64,
}

/// The agent: a streamed tool run, and a question about its outcome. Returns what its user saw.
pub(crate) async fn agent(bridge: &Bridge, model: &str) -> Result<String> {
    let mut seen = String::new();
    let parameters = json!({"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]});
    let square = Tool::new("square").description("Squares a number").parameters(parameters);
    let tools = ToolSet::new().tool(square, |arguments: Square| async move { Ok::<_, String>(arguments.n * arguments.n) });
    let done = bridge.run_tools(ChatRequest::new(model).user("What is the square of 12?"), &tools).streamed().await?;
    seen += &format!("{} ({} turns, {:?} USD)\n", done.response.text(), done.turns, done.cost_usd);

    let mut stream = bridge.chat_stream(done.request.user("Say that in other words.")).await?;
    while let Some(delta) = stream.next().await {
        seen += &format!("[{}]", delta?.text());
    }
    let response = stream.finish().await?;
    seen += &format!("\n{:?} {:?}", response.finish_reason, response.usage);
    Ok(seen)
}

#[tokio::main]
#[allow(dead_code, reason = "the tests call the agent")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, file, model] = arguments.as_slice() else { panic!("usage: cassette record|replay FILE MODEL") };
    let builder = Bridge::builder();
    let bridge = if mode == "record" { builder.record(file) } else { builder.replay(file) }.spawn().await?;
    println!("{}", agent(&bridge, model).await?);
    bridge.shutdown().await;
    Ok(())
}
