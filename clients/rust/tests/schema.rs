//! The crate's types beside the worker's own `schema`: each fails here when the other has moved on.

mod common;

use std::collections::BTreeSet;

use common::{Peer, fits, soon, worker_command};
use omni_bridge_client::types::{
    Budget, BudgetList, ChatCheck, ChatDelta, ChatResponse, ConfigReloaded, EmbedRequest, Embeddings, EngineState, FinishReason,
    Fit, FitStrategy, Fitted, InitializeResult, Limits, ModelInfo, ModelList, Ranking, RerankRequest, Task, TaskBudget, TokenCount,
    ToolCall, WorkerStatus,
};
use omni_bridge_client::{ChatRequest, Deadlines, ErrorKind, Message, Role, Tool, ToolChoice};
use serde_json::{Map, Value, json};

async fn schema() -> Value {
    let run = tokio::process::Command::new(worker_command()).arg("schema").output();
    let output = soon(run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A value with every member that the schema knows, none of them null.
fn sample(schema: &Value, node: &Value) -> Value {
    if let Some(reference) = node["$ref"].as_str() {
        return sample(schema, &schema["$defs"][reference.rsplit('/').next().unwrap()]);
    }
    if let Some(value) = node.get("const").or_else(|| node["enum"].get(0)) {
        return value.clone();
    }
    if let Some(choices) = node.get("anyOf").or_else(|| node.get("oneOf")).and_then(Value::as_array) {
        return sample(schema, choices.iter().find(|choice| choice["type"] != "null").unwrap());
    }
    match node["type"].as_str() {
        Some("string") => json!("text"),
        Some("integer") => json!(7),
        Some("number") => json!(0.5),
        Some("boolean") => json!(true),
        Some("array") => json!([sample(schema, &node["items"])]),
        Some("object") => {
            let members = node["properties"].as_object().cloned().unwrap_or_default();
            Value::Object(members.iter().map(|(name, node)| (name.clone(), sample(schema, node))).collect())
        }
        _ => json!({"any": "thing"}),
    }
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn every_member_of_every_answer_has_its_place() {
    let schema = schema().await;
    let of = |name: &str| sample(&schema, &json!({"$ref": name}));
    fits::<ChatResponse>(&of("ChatResult"));
    fits::<ChatDelta>(&of("Delta"));
    fits::<ToolCall>(&of("CheckedToolCall"));
    fits::<InitializeResult>(&of("InitializeResult"));
    fits::<Limits>(&of("Limits"));
    fits::<EngineState>(&of("ReadyParams")["engine"]);
    fits::<Deadlines>(&of("Deadlines"));
    fits::<Deadlines>(&of("TotalDeadline"));
    fits::<ModelList>(&of("ModelsListResult"));
    fits::<ModelInfo>(&of("ModelInfo"));
    fits::<TokenCount>(&of("TokenCount"));
    fits::<ChatCheck>(&of("ChatCheck"));
    fits::<Fitted>(&of("TokensFitResult"));
    fits::<Embeddings>(&of("EmbedResult"));
    fits::<Ranking>(&of("RerankResult"));
    fits::<WorkerStatus>(&of("Status"));
    fits::<BudgetList>(&of("BudgetsGetResult"));
    fits::<Budget>(&of("ExceededBudget"));
    fits::<TaskBudget>(&of("ExceededTask"));
    fits::<ConfigReloaded>(&of("ConfigReloaded"));
    fits::<RerankRequest>(&of("RerankParams"));
    assert_eq!(names(&of("ChatDelta")), ["delta", "requestId", "seq"].into());
    assert_eq!(names(&of("Error")), ["code", "data", "message"].into());
    assert_eq!(names(&of("CancelledParams")), ["reason", "requestId"].into());
}

#[tokio::test]
async fn every_member_of_an_error_has_its_place() {
    let schema = schema().await;
    let (bridge, mut peer) = Peer::pair().await;
    let calling = tokio::spawn(async move { bridge.chat(ChatRequest::new("m").user("hi")).await });
    let request = peer.next().await;
    peer.fail(&request, 1007, sample(&schema, &json!({"$ref": "ErrorData"}))).await;
    let error = soon(calling).await.unwrap().unwrap_err();
    let unnamed: Vec<_> = error.extra().keys().filter(|name| !["supported", "requested"].contains(&name.as_str())).collect();
    assert!(unnamed.is_empty(), "src/error.rs has no name for {unnamed:?}"); // those two are for clients of MCP
    let partial = error.partial().unwrap();
    assert!(partial.extra.is_empty() && error.receipt().unwrap().extra.is_empty());
    assert_eq!((error.status(), error.upstream_closed(), error.deadline()), (Some(7), Some(true), Some("text")));
}

#[tokio::test]
async fn the_error_kinds_are_the_workers() {
    let schema = schema().await;
    let kinds = schema["$defs"]["ErrorData"]["properties"]["kind"]["enum"].as_array().unwrap();
    for kind in kinds {
        let kind = ErrorKind::from(kind.as_str().unwrap());
        assert!(!matches!(kind, ErrorKind::Other(_)), "src/error.rs lacks {kind}");
    }
    let last = ErrorKind::NAMED.iter().position(|kind| kind == &ErrorKind::Cancelled).unwrap();
    assert_eq!(last + 1, kinds.len(), "a kind up to `cancelled` is the worker's, those after it are the crate's");
}

#[tokio::test]
async fn the_finish_reasons_are_the_workers() {
    let schema = schema().await;
    let node = &schema["$defs"]["ChatResult"]["properties"]["finish_reason"];
    for reason in node["anyOf"].as_array().unwrap().iter().filter_map(|choice| choice["enum"].as_array()).flatten() {
        assert!(!matches!(FinishReason::from(reason.as_str().unwrap()), FinishReason::Other(_)), "src/types.rs lacks {reason}");
    }
}

#[tokio::test]
async fn a_request_can_say_all_that_the_worker_takes_and_no_more() {
    let schema = schema().await;
    let params = sample(&schema, &json!({"$ref": "ChatParams"}));
    fits::<ChatRequest>(&params);
    let mut request = ChatRequest::new("m")
        .user("hi")
        .tool(Tool::new("f").description("d").parameters(json!({})).strict(true))
        .tool_choice(ToolChoice::Auto)
        .parallel_tool_calls(true)
        .temperature(0.5)
        .top_p(0.5)
        .max_tokens(1u64)
        .max_completion_tokens(1u64)
        .stop("x")
        .seed(1)
        .response_format(json!({}))
        .reasoning_effort("low")
        .thinking(json!({}))
        .frequency_penalty(0.5)
        .presence_penalty(0.5)
        .logit_bias(Map::new())
        .logprobs(true)
        .top_logprobs(1u64)
        .end_user("u")
        .metadata(Map::new())
        .deadlines(Deadlines { total_ms: Some(1), first_token_ms: Some(1), idle_ms: Some(1) })
        .provider_params(Map::new())
        .repair_json()
        .ensure(2)
        .cache_auto()
        .idempotency_key("k")
        .fit(Fit::new(FitStrategy::OldestTurns).max_input_tokens(1))
        .task(Task::new("t").max_usd(1.0).max_tokens(1).max_requests(1))
        .meta(Map::new());
    request.stream = Some(true);
    let written = serde_json::to_value(request).unwrap();
    assert_eq!(names(&written), names(&params));
    let tool = sample(&schema, &json!({"$ref": "FunctionTool"}));
    assert_eq!(names(&written["tools"][0]["function"]), names(&tool));
    assert_eq!(names(&written["deadlines"]), names(&sample(&schema, &json!({"$ref": "Deadlines"}))));
}

#[tokio::test]
async fn messages_have_the_workers_roles() {
    let schema = schema().await;
    for name in ["SystemMessage", "UserMessage", "AssistantMessage", "ToolMessage"] {
        let role = &schema["$defs"][name]["properties"]["role"];
        for role in role["enum"].as_array().cloned().unwrap_or_else(|| vec![role["const"].clone()]) {
            assert!(!matches!(Role::from(role.as_str().unwrap()), Role::Other(_)), "src/types.rs lacks {role}");
        }
    }
    let required = |name: &str| schema["$defs"][name]["required"].as_array().unwrap().len();
    for (message, name) in [(Message::user("x"), "UserMessage"), (Message::tool("1", "x"), "ToolMessage")] {
        assert_eq!(message.0.len(), required(name));
    }
}

#[tokio::test]
async fn embed_and_rerank_can_say_all_that_the_worker_takes() {
    let schema = schema().await;
    let deadlines = Deadlines { total_ms: Some(1), ..Deadlines::default() };
    let embed = EmbedRequest::new("m", ["a"]).encoding_format("float").dimensions(1u64).user("u").metadata(Map::new());
    let rerank = RerankRequest::new("m", "q", ["a"]).top_n(1u64).return_documents(true).metadata(Map::new());
    for (written, name) in [
        (
            serde_json::to_value(
                embed.deadlines(deadlines).provider_params(Map::new()).task(Task::new("t")).idempotency_key("k").meta(Map::new()),
            )
            .unwrap(),
            "EmbedParams",
        ),
        (
            serde_json::to_value(
                rerank.deadlines(deadlines).provider_params(Map::new()).task(Task::new("t")).idempotency_key("k").meta(Map::new()),
            )
            .unwrap(),
            "RerankParams",
        ),
    ] {
        assert_eq!(names(&written), names(&sample(&schema, &json!({"$ref": name}))));
    }
}

/// `shutdown` has no method: closing stdin does the same, and works when the worker does not respond. The last three are MCP's.
const METHODS: [&str; 19] = [
    "initialize",
    "ping",
    "shutdown",
    "chat",
    "chat/check",
    "models/list",
    "models/get",
    "tokens/count",
    "tokens/fit",
    "embed",
    "rerank",
    "status",
    "budgets/get",
    "tasks/get",
    "tasks/raise",
    "config/reload",
    "server/discover",
    "tools/list",
    "tools/call",
];

#[tokio::test]
async fn every_method_and_notification_is_known_here() {
    let schema = schema().await;
    let methods = names(&schema["methods"]);
    let unknown: Vec<_> = methods.iter().filter(|method| !METHODS.contains(method)).collect();
    assert!(unknown.is_empty(), "the worker has {unknown:?}: give Bridge a method for it, or add it to METHODS");
    let from: BTreeSet<_> = ["notifications/ready", "notifications/chat/delta", "notifications/progress"].into();
    assert_eq!(names(&schema["notifications"]["fromBridge"]), from);
    // The crate cancels with notifications/cancelled; the other is the same for clients of LSP and ACP.
    let to: BTreeSet<_> = ["notifications/initialized", "notifications/cancelled", "$/cancelRequest"].into();
    assert_eq!(names(&schema["notifications"]["toBridge"]), to);
}
