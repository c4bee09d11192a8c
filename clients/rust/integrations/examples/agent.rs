//! A whole agent: tools from types, tools of an MCP server, retries, every step on stderr.
//!
//! Without arguments it needs no key: `cargo run --example agent --features schema,rmcp`. With a real model it is the same program:
//! `... -- openai/gpt-4o-mini "What is 17.5 times the square root of 1764?"`. `MCP_SERVER="npx -y some-server"` adds its tools.

use omni_bridge_client::{Bridge, ChatRequest, Result, RetryPolicy, Step, ToolSet};
use rmcp::ServiceExt;
use rmcp::transport::TokioChildProcess;
use schemars::JsonSchema;
use serde::Deserialize;

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let model = words.next().unwrap_or_else(|| "offline/tools".into());
    let question = words.next().unwrap_or_else(|| "What is 6 * 7?".into());

    let mut tools = tools();
    let mut server = None; // stays alive as long as its tools
    if let Ok(command) = std::env::var("MCP_SERVER") {
        let mut words = command.split_whitespace();
        let mut command = tokio::process::Command::new(words.next().unwrap_or_default());
        command.args(words);
        let running = ().serve(TokioChildProcess::new(command)?).await?;
        tools = tools.mcp(running.peer()).await?;
        server = Some(running);
    }

    let bridge = Bridge::builder().retry(RetryPolicy::new(3)).spawn().await?;
    println!("{}", answer(&bridge, &model, &question, &tools).await?);
    bridge.shutdown().await;
    drop(server);
    Ok(())
}

/// The agent: a conversation with tools, until the model has its answer.
pub async fn answer(bridge: &Bridge, model: &str, question: &str, tools: &ToolSet) -> Result<String> {
    let request = ChatRequest::new(model)
        .system("You are a careful calculator. Use the tools for every step; answer with the result alone.")
        .user(question);
    let done = bridge.run_tools(request, tools).max_turns(10).on_step(log).await?;
    Ok(done.response.text().to_owned())
}

fn log(step: Step<'_>) {
    if let Step::ToolResult { call, result, .. } = step {
        eprintln!("{}({}) -> {result:?}", call.name(), call.function.arguments);
    }
}

#[derive(JsonSchema, Deserialize)]
struct Calculation {
    left: f64,
    operator: Operator,
    right: f64,
}

#[derive(JsonSchema, Deserialize)]
enum Operator {
    #[serde(rename = "*")]
    Times,
    #[serde(rename = "+")]
    Plus,
    #[serde(rename = "-")]
    Minus,
    #[serde(rename = "/")]
    Over,
}

#[derive(JsonSchema, Deserialize)]
struct SquareRoot {
    number: f64,
}

/// The agent's own tools.
pub fn tools() -> ToolSet {
    ToolSet::new().function("calculate", "Calculates `left operator right`", calculate).function(
        "square_root",
        "The square root of a number",
        |root: SquareRoot| async move { Ok::<_, String>(root.number.sqrt()) },
    )
}

async fn calculate(Calculation { left, operator, right }: Calculation) -> std::result::Result<f64, String> {
    match operator {
        Operator::Times => Ok(left * right),
        Operator::Plus => Ok(left + right),
        Operator::Minus => Ok(left - right),
        Operator::Over if right != 0.0 => Ok(left / right),
        Operator::Over => Err("a division by zero".to_owned()),
    }
}
