//! The real worker, with its offline models and with a real HTTP upstream.
#![cfg(unix)]

mod common;

use std::time::Duration;

use common::upstream::Upstream;
use common::{soon, until, worker};
use omni_bridge_client::{Bridge, ChatRequest, Deadlines, ErrorKind, FinishReason, Message, Role, Tool, ToolChoice};
use serde_json::json;

async fn online(upstream: &Upstream) -> Bridge {
    soon(worker().envs(upstream.environment()).spawn()).await.unwrap()
}

async fn offline() -> Bridge {
    soon(worker().spawn()).await.unwrap()
}

#[tokio::test]
async fn the_worker_says_who_it_is_and_gets_warm() {
    let bridge = offline().await;
    let hello = bridge.workers()[0].initialize_result.clone();
    assert_eq!((hello.protocol_version.as_str(), hello.server_info.name.as_str()), ("omni-bridge/1", "omni-bridge"));
    assert!(hello.limits.max_in_flight > 0 && hello.extra.is_empty(), "{hello:?}");
    soon(bridge.ready()).await.unwrap();
    soon(bridge.ping()).await.unwrap();
}

#[tokio::test]
async fn an_offline_chat_and_a_stream_say_the_same() {
    let bridge = offline().await;
    let request = ChatRequest::new("offline/echo").user("Grüße, 世界 🌍\nzwei");
    let plain = soon(bridge.chat(request.clone())).await.unwrap();
    assert_eq!(plain.text(), "Grüße, 世界 🌍\nzwei");
    assert_eq!((&plain.finish_reason, plain.cost_usd), (&Some(FinishReason::Stop), Some(0.0)));
    let mut stream = bridge.chat_stream(request).await.unwrap();
    let mut text = String::new();
    while let Some(delta) = soon(stream.next()).await {
        text += delta.unwrap().text();
    }
    assert_eq!(text, plain.text());
    assert_eq!(stream.finish().await.unwrap().content, plain.content);
}

#[tokio::test]
async fn a_tool_call_goes_round_with_its_message_verbatim() {
    #[derive(serde::Deserialize)]
    struct Place {
        city: String,
    }
    let bridge = offline().await;
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Brno"]}}, "required": ["city"]});
    let tool = Tool::new("weather").description("The weather of a city").parameters(schema);
    let request =
        ChatRequest::new("offline/tools").system("Be brief.").user("Weather?").tool(tool).tool_choice(ToolChoice::Required);
    let called = soon(bridge.chat(request.clone())).await.unwrap();
    assert_eq!((called.content.as_deref(), called.finish_reason), (None, Some(FinishReason::ToolCalls)));
    let call = &called.tool_calls[0];
    assert_eq!((call.name(), call.parse::<Place>().unwrap().city.as_str()), ("weather", "Brno"));
    assert_eq!(called.message.role(), Some(Role::Assistant));
    let response =
        soon(bridge.chat(request.message(called.message.clone()).message(Message::tool(&call.id, "sunny")))).await.unwrap();
    assert_eq!(response.text(), "sunny");
}

#[tokio::test]
async fn every_parameter_is_accepted_by_the_worker() {
    let bridge = offline().await;
    let soft = json!({"a": "b"}).as_object().cloned().unwrap();
    let bias = json!({"50256": -100.0}).as_object().cloned().unwrap();
    let request = ChatRequest::new("offline/echo")
        .user(vec![
            omni_bridge_client::ContentPart::text("hi"),
            omni_bridge_client::ContentPart::image_url("data:image/png;base64,AA=="),
            omni_bridge_client::ContentPart::input_audio("AA==", "wav"),
            omni_bridge_client::ContentPart::file("data:text/plain;base64,AA==", "a.txt"),
        ])
        .tool(Tool::new("f").parameters(json!({"type": "object"})).strict(true))
        .tool_choice(ToolChoice::Function("f".into()))
        .parallel_tool_calls(false)
        .temperature(0.5)
        .top_p(0.9)
        .max_tokens(10u64)
        .max_completion_tokens(10u64)
        .stop("end")
        .seed(7)
        .response_format(json!({"type": "json_object"}))
        .reasoning_effort("low")
        .thinking(json!({"type": "disabled"}))
        .frequency_penalty(0.1)
        .presence_penalty(0.1)
        .logit_bias(bias)
        .logprobs(true)
        .top_logprobs(2u64)
        .end_user("someone")
        .metadata(soft)
        .deadlines(Deadlines { total_ms: Some(60_000), first_token_ms: Some(60_000), idle_ms: Some(60_000) });
    assert_eq!(soon(bridge.chat(request)).await.unwrap().text(), "hi");
}

#[tokio::test]
async fn the_methods_beside_chat_answer_as_typed() {
    let bridge = offline().await;
    let models = soon(bridge.models()).await.unwrap();
    assert!(models.iter().any(|model| model.model == "offline/echo"), "{models:?}");
    assert_eq!(soon(bridge.model("offline/tools")).await.unwrap().supports["tools"], Some(true));
    let request = ChatRequest::new("offline/echo").user("three small words");
    assert!(soon(bridge.count_tokens(&request)).await.unwrap().input_tokens > 0);
    assert!(soon(bridge.check(request)).await.unwrap().ok);
    let status = soon(bridge.status()).await.unwrap();
    assert_eq!((status.len(), status[0].version.is_empty()), (1, false));
    let error = soon(bridge.embed(omni_bridge_client::EmbedRequest::new("offline/none", ["x"]))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::ModelNotFound);
}

#[tokio::test]
async fn errors_of_the_worker_arrive_typed() {
    let bridge = offline().await;
    let error = soon(bridge.chat(ChatRequest::new("offline/none").user("hi"))).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (&ErrorKind::ModelNotFound, Some(1003)));
    assert!(error.was_sent() && !error.is_retryable());
    let mut request = ChatRequest::new("offline/echo").user("hi");
    request.extra.insert("api_base".into(), json!("https://example.com"));
    let error = soon(bridge.chat(request)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidRequest);
    assert!(error.message().contains("api_base"), "{error}");
    let error = soon(bridge.call::<serde_json::Value>("no/such/method", json!({}))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::MethodNotFound);
}

#[tokio::test]
async fn a_deadline_of_the_builder_holds_for_every_chat() {
    let upstream = Upstream::start().await;
    let deadlines = Deadlines { total_ms: Some(300), ..Deadlines::default() };
    let bridge = soon(worker().envs(upstream.environment()).deadlines(deadlines).spawn()).await.unwrap();
    let error = soon(bridge.chat(ChatRequest::new("openai/hang").user("hi"))).await.unwrap_err();
    assert_eq!((error.kind(), error.deadline()), (&ErrorKind::Timeout, Some("total_ms")));
}

#[tokio::test]
async fn bad_flags_show_what_the_worker_said() {
    let error = soon(worker().config("no-such-gateway.yaml").spawn()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerStart);
    assert!(error.stderr().iter().any(|line| line.contains("no-such-gateway.yaml")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_chats_of_64_kb_at_once_through_a_real_upstream() {
    let upstream = Upstream::start().await;
    let bridge = online(&upstream).await;
    let chats: Vec<_> = (0..200)
        .map(|number| {
            let bridge = bridge.clone();
            tokio::spawn(async move {
                let text = format!("{number} {}", "x".repeat(64 * 1024 + number));
                if number % 2 == 0 {
                    let response = bridge.chat(ChatRequest::new("openai/echo").user(&text)).await.unwrap();
                    assert_eq!(response.text(), format!("heard {}", text.len()));
                } else {
                    let stream = bridge.chat_stream(ChatRequest::new("openai/echo").user(&text)).await.unwrap();
                    assert_eq!(stream.finish().await.unwrap().text(), text);
                }
            })
        })
        .collect();
    for chat in chats {
        tokio::time::timeout(common::WAIT * 3, chat).await.expect("it never ended").unwrap();
    }
    assert_eq!(upstream.wait(|_| true).await.requests, 200);
    assert_eq!(bridge.workers()[0].in_flight, 0);
}

#[tokio::test]
async fn a_dropped_stream_closes_the_connection_to_the_provider() {
    let upstream = Upstream::start().await;
    let bridge = online(&upstream).await;
    let mut stream = bridge.chat_stream(ChatRequest::new("openai/hang").user("hi")).await.unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().text(), "first");
    assert_eq!(upstream.wait(|_| true).await.closed, 0);
    drop(stream);
    upstream.wait(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_dropped_chat_closes_the_connection_to_the_provider() {
    let upstream = Upstream::start().await;
    let bridge = online(&upstream).await;
    let calling = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.chat(ChatRequest::new("openai/hang").user("hi")).await }
    });
    upstream.wait(|seen| seen.requests == 1).await;
    calling.abort();
    upstream.wait(|seen| seen.closed == 1).await;
    until("the worker has responded", || bridge.workers()[0].in_flight == 0).await;
}

#[tokio::test]
async fn a_cancel_brings_proof_and_what_had_come() {
    let upstream = Upstream::start().await;
    let bridge = online(&upstream).await;
    let mut stream = bridge.chat_stream(ChatRequest::new("openai/hang").user("hi")).await.unwrap();
    soon(stream.next()).await.unwrap().unwrap();
    let error = soon(stream.cancel()).await.unwrap_err();
    assert_eq!((error.kind(), error.upstream_closed()), (&ErrorKind::Cancelled, Some(true)));
    assert_eq!(error.partial().unwrap().content.as_deref(), Some("first"));
    upstream.wait(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_of_a_stream_fails_it_and_is_replaced() {
    let upstream = Upstream::start().await;
    let bridge = soon(worker().envs(upstream.environment()).backoff(Duration::ZERO, Duration::ZERO).spawn()).await.unwrap();
    let mut stream = bridge.chat_stream(ChatRequest::new("openai/hang").user("hi")).await.unwrap();
    soon(stream.next()).await.unwrap().unwrap();
    let id = i32::try_from(bridge.workers()[0].process_id.unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::KILL).unwrap();
    let error = soon(stream.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerLost);
    assert!(error.was_sent() && !error.is_retryable(), "a delta had come: {error:?}");
    assert_eq!(soon(bridge.chat(ChatRequest::new("offline/echo").user("again"))).await.unwrap().text(), "again");
}

#[tokio::test]
async fn a_slow_consumer_of_a_real_stream_holds_up_nobody() {
    let upstream = Upstream::start().await;
    let bridge = online(&upstream).await;
    let mut slow = bridge.chat_stream(ChatRequest::new("openai/count-3000").user("hi")).await.unwrap();
    soon(slow.next()).await.unwrap().unwrap();
    for text in ["one", "two"] {
        assert_eq!(soon(bridge.chat(ChatRequest::new("offline/echo").user(text))).await.unwrap().text(), text);
    }
    until("its response is there, unread", || bridge.workers()[0].in_flight == 0).await;
    let response = soon(slow.finish()).await.unwrap();
    assert_eq!(response.text().split_whitespace().count(), 3000);
}

#[tokio::test]
async fn a_pool_of_real_workers_is_one_bridge() {
    let bridge = soon(worker().workers(2).spawn()).await.unwrap();
    let ids: Vec<_> = bridge.workers().iter().map(|worker| worker.process_id).collect();
    assert_ne!(ids[0], ids[1]);
    for number in 0..4 {
        assert_eq!(
            soon(bridge.chat(ChatRequest::new("offline/echo").user(number.to_string()))).await.unwrap().text(),
            number.to_string()
        );
    }
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn shutdown_lets_a_chat_in_flight_end() {
    let upstream = Upstream::start().await;
    let bridge = soon(worker().envs(upstream.environment()).shutdown_grace(common::WAIT).spawn()).await.unwrap();
    let stream = bridge.chat_stream(ChatRequest::new("openai/count-100").user("hi")).await.unwrap();
    soon(bridge.shutdown()).await;
    assert_eq!(soon(stream.finish()).await.unwrap().text().split_whitespace().count(), 100);
}
