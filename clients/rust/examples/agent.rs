//! A whole agent: it asks a model, runs the tools that the model calls, and goes on until there is an answer.
//!
//! Without arguments it needs no key: `cargo run --example agent`. With a real model it is the same program:
//! `cargo run --example agent -- openai/gpt-4o-mini "What is 17.5 times the square root of 1764?"`

use std::time::Duration;

use omni_bridge_client::{Bridge, ChatRequest, ChatResponse, Error, Message, Result, Tool, ToolCall};
use serde::Deserialize;
use serde_json::json;

const TURNS: usize = 10;
const TRIES: u32 = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let model = words.next().unwrap_or_else(|| "offline/tools".into());
    let question = words.next().unwrap_or_else(|| "What is 6 times 7?".into());
    let bridge = Bridge::spawn().await?;
    println!("{}", answer(&bridge, &model, &question).await?);
    bridge.shutdown().await;
    Ok(())
}

/// The agent's loop.
pub async fn answer(bridge: &Bridge, model: &str, question: &str) -> Result<String> {
    let mut request = ChatRequest::new(model)
        .system("You are a careful calculator. Use the tools for every step; answer with the result alone.")
        .user(question)
        .tools(tools());
    for _ in 0..TURNS {
        let response = ask(bridge, &request).await?;
        if response.tool_calls.is_empty() {
            return Ok(response.text().to_owned());
        }
        request = request.message(response.message); // verbatim: it holds what the provider needs to see again
        for call in &response.tool_calls {
            // What goes wrong in a tool is the model's to mend, so it is told.
            let result = run(call).unwrap_or_else(|error| format!("error: {error}"));
            eprintln!("{}({}) -> {result}", call.name(), call.function.arguments);
            request = request.message(Message::tool(&call.id, result));
        }
    }
    Ok(format!("no answer after {TURNS} turns"))
}

/// Tries again what may succeed later, when the provider says so or after a pause that doubles.
async fn ask(bridge: &Bridge, request: &ChatRequest) -> Result<ChatResponse> {
    let mut tries = 1;
    loop {
        match bridge.chat(request.clone()).await {
            Err(error) if error.is_retryable() && tries < TRIES => {
                let pause = error.retry_after().unwrap_or(Duration::from_millis(500) * 2u32.pow(tries));
                eprintln!("{error}; trying again in {pause:?}");
                tokio::time::sleep(pause).await;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

fn tools() -> [Tool; 2] {
    let operator = json!({"enum": ["*", "+", "-", "/"], "description": "The operator"});
    let number = json!({"type": "number"});
    [
        Tool::new("calculate").description("Calculates `left operator right`").parameters(json!({
            "type": "object",
            "properties": {"left": number, "operator": operator, "right": number},
            "required": ["left", "operator", "right"],
        })),
        Tool::new("square_root").description("The square root of a number").parameters(json!({
            "type": "object", "properties": {"number": number}, "required": ["number"],
        })),
    ]
}

#[derive(Deserialize)]
struct Calculation {
    left: f64,
    operator: char,
    right: f64,
}

#[derive(Deserialize)]
struct SquareRoot {
    number: f64,
}

fn run(call: &ToolCall) -> std::result::Result<String, String> {
    let said = |error: Error| error.message().to_owned();
    match call.name() {
        "calculate" => {
            let Calculation { left, operator, right } = call.parse().map_err(said)?;
            match operator {
                '*' => Ok((left * right).to_string()),
                '+' => Ok((left + right).to_string()),
                '-' => Ok((left - right).to_string()),
                '/' if right != 0.0 => Ok((left / right).to_string()),
                _ => Err(format!("{left} {operator} {right} can't be calculated")),
            }
        }
        "square_root" => Ok(call.parse::<SquareRoot>().map_err(said)?.number.sqrt().to_string()),
        other => Err(format!("there is no tool {other}")),
    }
}
