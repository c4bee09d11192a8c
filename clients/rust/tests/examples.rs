//! The examples do what they say.

mod common;

#[allow(dead_code, unreachable_pub, reason = "its main is not called here")]
#[path = "../examples/agent.rs"]
mod agent;

use std::path::Path;

use common::{repository, soon, worker};

#[tokio::test]
async fn the_agent_runs_its_tools_and_answers() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let answered = soon(agent::answer(&bridge, "offline/tools", "What is 1 * 1?")).await.unwrap();
    assert_eq!(answered, "1");
    soon(bridge.shutdown()).await;
}

/// SmolLM2 is small and may say anything; what counts is that the loop comes to its end with a real model's words.
#[tokio::test]
async fn the_agent_runs_on_a_model_of_this_machine() {
    let template = repository().join("tests/tools.jinja"); // its own template knows no tools
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("local.yaml");
    let settings = format!("{{chat_template: '{}', context_tokens: 1024}}", template.display());
    std::fs::write(&config, format!("omni_bridge: {{local: {{smollm2: {settings}}}}}\n")).unwrap();
    let bridge = soon(worker().arg("--local").config(&config).spawn()).await.unwrap();
    let answered = soon(agent::answer(&bridge, "local/smollm2", "What is 2 * 3?")).await.unwrap();
    assert!(!answered.trim().is_empty(), "it said nothing");
    soon(bridge.shutdown()).await;
}

#[test]
fn the_agent_is_a_page_long() {
    let lines = include_str!("../examples/agent.rs").lines().count();
    assert!(lines < 120, "{lines} lines");
}
