//! The worker as the MCP server of rmcp's client: `serve()` as it is, and each lifecycle that the crate has.

#[path = "../../tests/common/mod.rs"]
mod common;

use common::{soon, worker_command};
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, RoleClient, RunningService};
use rmcp::transport::TokioChildProcess;
use serde_json::json;

fn worker() -> TokioChildProcess {
    let mut command = tokio::process::Command::new(worker_command());
    command.arg("--stdio");
    TokioChildProcess::new(command).unwrap()
}

fn chat(text: &str) -> CallToolRequestParams {
    let arguments = json!({"model": "offline/echo", "messages": [{"role": "user", "content": text}]});
    CallToolRequestParams::new("chat").with_arguments(arguments.as_object().unwrap().clone())
}

async fn talk(client: RunningService<RoleClient, ()>, revision: &ProtocolVersion) {
    assert_eq!(client.peer().protocol_version().as_ref(), Some(revision));
    let mut names: Vec<String> =
        soon(client.list_all_tools()).await.unwrap().iter().map(|tool| tool.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["chat", "count_tokens", "list_models"]);
    let result = soon(client.call_tool(chat("two words"))).await.unwrap();
    assert_eq!(result.content[0].as_text().unwrap().text, "two words");
    assert_eq!(result.structured_content.unwrap()["content"], "two words");
    assert!(soon(client.call_tool(CallToolRequestParams::new("no_such_tool"))).await.is_err());
    soon(client.cancel()).await.unwrap();
}

#[tokio::test]
async fn serve_as_it_is_finds_the_tools() {
    let client = soon(().serve(worker())).await.unwrap();
    talk(client, &ProtocolVersion::V_2025_11_25).await;
}

#[tokio::test]
async fn a_client_that_discovers_needs_no_handshake() {
    let lifecycle = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] };
    let client = soon(().serve_with_lifecycle(worker(), lifecycle)).await.unwrap();
    talk(client, &ProtocolVersion::V_2026_07_28).await;
}

#[tokio::test]
async fn a_client_that_finds_out_discovers() {
    let lifecycle =
        ClientLifecycleMode::Auto { preferred_versions: vec![ProtocolVersion::LATEST], legacy_version: None };
    let client = soon(().serve_with_lifecycle(worker(), lifecycle)).await.unwrap();
    talk(client, &ProtocolVersion::V_2026_07_28).await;
}
