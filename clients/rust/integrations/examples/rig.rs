//! An agent of the crate `rig` on a bridge: `cargo run --example rig --features rig`, with a model's name behind `--` for a real one.

use omni_bridge_client::Bridge;
use rig::AgentBuilder;
use rig::tool::PortableTool;
use serde::Deserialize;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "offline/tools".into());
    let bridge = Bridge::spawn().await?;
    println!("{}", answer(&bridge, &model, "What is 6 times 7?").await?);
    bridge.shutdown().await;
    Ok(())
}

/// A rig agent with a tool; its requests go through the bridge.
pub async fn answer(bridge: &Bridge, model: &str, question: &str) -> Result<String, Box<dyn std::error::Error>> {
    let agent = AgentBuilder::new(bridge.rig().completion(model)).preamble("Multiply with the tool.").tool(Multiply).build();
    let response = agent.prompt(question).max_turns(5).await?;
    Ok(response.output())
}

/// The tool.
pub struct Multiply;

/// Its arguments.
#[derive(Deserialize)]
pub struct Product {
    left: f64,
    right: f64,
}

impl PortableTool for Multiply {
    const NAME: &'static str = "multiply";
    type Args = Product;
    type Output = f64;
    type Error = std::convert::Infallible;

    fn description(&self) -> String {
        "Multiplies two numbers".into()
    }

    fn parameters(&self) -> Value {
        let number = json!({"type": "number"});
        json!({"type": "object", "properties": {"left": number, "right": number}, "required": ["left", "right"]})
    }

    async fn call(&self, product: Product) -> Result<f64, Self::Error> {
        Ok(product.left * product.right)
    }
}
