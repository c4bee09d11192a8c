//! Without a child: Python runs inside the agent, and `bridge_worker.chat` returns the same types.
//!
//! `PYTHONPATH=<site-packages of the bridge>:<this checkout> cargo run --features embed --example embed -- openai/gpt-4o-mini "hi"`
//!
//! It saves a process and two copies of each message; a call is a function call. It costs what the process was good for: a crash of a
//! native module takes the agent with it, its memory can't be recycled, there is one interpreter lock for all chats, cancelling and
//! deltas need Python code on both sides, and the agent must be linked to the very Python that the bridge was installed for.
//! Most agents want the process.

use std::error::Error;

use omni_bridge_client::ChatRequest;
use omni_bridge_client::types::ChatResponse;
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let model = words.next().unwrap_or_else(|| "offline/echo".into());
    let request = ChatRequest::new(model).user(words.next().unwrap_or_else(|| "hello".into()));
    println!("{}", chat(&request)?.text());
    Ok(())
}

/// Blocks this thread, not the interpreter: several threads may call it at once.
fn chat(request: &ChatRequest) -> Result<ChatResponse, Box<dyn Error>> {
    let request_json = serde_json::to_string(request)?;
    let response_json: String = Python::attach(|python| {
        let params = python.import("json")?.call_method1("loads", (request_json,))?;
        let result = python.import("bridge_worker")?.call_method("chat", (), Some(params.cast::<PyDict>()?))?;
        result.call_method0("model_dump_json")?.extract()
    })
    .map_err(|error: PyErr| error.to_string())?;
    Ok(serde_json::from_str(&response_json)?)
}
