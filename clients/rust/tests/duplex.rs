//! The client against a worker that the test plays, in memory: every order of messages can be made.

mod common;

use std::time::Duration;

use common::{Peer, initialize_result, said, soon};
use omni_bridge_client::{Bridge, ChatRequest, Deadlines, EmbedRequest, ErrorKind, FinishReason, Message, RerankRequest};
use serde_json::{Value, json};

fn hi() -> ChatRequest {
    ChatRequest::new("m").user("hi")
}

#[tokio::test]
async fn a_chat_is_sent_and_its_answer_comes_back_whole() {
    let (bridge, mut peer) = Peer::pair().await;
    let calling = tokio::spawn(async move { bridge.chat(hi().temperature(0.5)).await });
    let request = peer.next().await;
    assert_eq!(request["method"], "chat");
    assert_eq!(request["params"], json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}));
    let mut result = said("hello");
    result["finish_reason"] = json!("bored");
    result["news"] = json!({"from": 2030});
    result["message"]["signature"] = json!("x==");
    peer.respond(&request, result.clone()).await;
    let response = soon(calling).await.unwrap().unwrap();
    assert_eq!(response.text(), "hello");
    assert_eq!(response.finish_reason, Some(FinishReason::Other("bored".into())));
    assert_eq!(response.extra["news"]["from"], 2030);
    assert_eq!(serde_json::to_value(&response.message).unwrap(), result["message"]);
    assert_eq!(serde_json::to_value(&response).unwrap(), result);
}

#[tokio::test]
async fn responses_find_their_callers_in_any_order() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..20 {
        let bridge = bridge.clone();
        callers
            .spawn(async move { (number.to_string(), bridge.chat(ChatRequest::new("m").user(number.to_string())).await.unwrap()) });
    }
    let mut requests = Vec::new();
    for _ in 0..20 {
        requests.push(peer.next().await);
    }
    for request in requests.iter().rev() {
        peer.respond(request, said(request["params"]["messages"][0]["content"].as_str().unwrap())).await;
    }
    while let Some(done) = soon(callers.join_next()).await {
        let (content, response) = done.unwrap();
        assert_eq!(response.text(), content);
    }
}

#[tokio::test]
async fn a_stream_gives_its_deltas_and_then_the_response() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    assert_eq!(request["params"]["stream"], true);
    for (seq, text) in ["hel", "lo"].into_iter().enumerate() {
        peer.delta(&request, seq as u64, json!({"content": text})).await;
    }
    peer.respond(&request, said("hello")).await;
    let mut text = String::new();
    while let Some(delta) = soon(stream.next()).await {
        assert!(stream.response().is_none());
        text += delta.unwrap().text();
    }
    assert_eq!(text, "hello");
    assert_eq!(stream.response().unwrap().text(), "hello");
    assert!(soon(stream.next()).await.is_none());
    assert_eq!(stream.finish().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn an_error_is_typed_and_keeps_what_had_come() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    peer.delta(&request, 0, json!({"content": "hel"})).await;
    let data = json!({"kind": "stream_interrupted", "retryable": false, "retry_after_ms": null, "provider": "openai", "model": "m",
                      "status": null, "partial": {"content": "hel", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}});
    peer.fail(&request, 1014, data).await;
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().text(), "hel");
    let error = soon(stream.next()).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (&ErrorKind::StreamInterrupted, Some(1014)));
    let partial = error.partial().unwrap();
    assert_eq!((partial.content.as_deref(), partial.tool_calls[0].name()), (Some("hel"), "f"));
    assert!(soon(stream.next()).await.is_none());
    assert_eq!(stream.finish().await.unwrap_err().kind(), &ErrorKind::Closed);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_on_the_wire() {
    let (bridge, mut peer) = Peer::pair().await;
    let calling = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.chat(hi()).await }
    });
    let request = peer.next().await;
    calling.abort();
    let cancel = peer.next().await;
    assert_eq!(cancel["method"], "notifications/cancelled");
    assert_eq!(cancel["params"]["requestId"], request["id"]);
    assert_eq!(bridge.workers()[0].in_flight, 1, "it counts until the worker has responded");
    peer.fail(&request, -32800, json!({"kind": "cancelled"})).await;
    common::until("the response was taken", || bridge.workers()[0].in_flight == 0).await;
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled_and_others_go_on() {
    let (bridge, mut peer) = Peer::pair().await;
    let dropped = bridge.chat_stream(hi()).await.unwrap();
    let first = peer.next().await;
    let kept = bridge.chat_stream(hi()).await.unwrap();
    let second = peer.next().await;
    peer.delta(&first, 0, json!({"content": "x"})).await;
    drop(dropped);
    let cancel = peer.next().await;
    assert_eq!(cancel["params"]["requestId"], first["id"]);
    peer.delta(&first, 1, json!({"content": "late"})).await;
    peer.fail(&first, -32800, json!({"kind": "cancelled"})).await;
    peer.respond(&second, said("kept")).await;
    assert_eq!(soon(kept.finish()).await.unwrap().text(), "kept");
}

#[tokio::test]
async fn a_finished_call_is_not_cancelled() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    peer.respond(&request, said("done")).await;
    assert!(soon(stream.next()).await.is_none());
    drop(stream);
    drop(bridge);
    peer.closed().await;
}

#[tokio::test]
async fn a_cancel_that_is_waited_for_tells_what_the_worker_said() {
    let (bridge, mut peer) = Peer::pair().await;
    let stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    let cancelling = tokio::spawn(stream.cancel());
    assert_eq!(peer.next().await["method"], "notifications/cancelled");
    let data = json!({"kind": "cancelled", "upstream_closed": true, "partial": {"content": "half", "tool_calls": []}});
    peer.fail(&request, -32800, data).await;
    let error = soon(cancelling).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.upstream_closed()), (&ErrorKind::Cancelled, Some(true)));
    assert_eq!(error.partial().unwrap().content.as_deref(), Some("half"));
}

#[tokio::test]
async fn a_slow_consumer_holds_up_nobody_and_loses_nothing() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut slow = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    let mut text = String::new();
    for seq in 0..5000 {
        text += &format!("{seq} ");
        peer.delta(&request, seq, json!({"content": format!("{seq} ")})).await;
    }
    let other = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.chat(hi()).await }
    });
    let quick = peer.next().await;
    peer.respond(&quick, said("quick")).await;
    assert_eq!(soon(other).await.unwrap().unwrap().text(), "quick");
    peer.respond(&request, said(&text)).await;
    let (mut joined, mut deltas) = (String::new(), 0);
    while let Some(delta) = soon(slow.next()).await {
        joined += delta.unwrap().text();
        deltas += 1;
    }
    assert_eq!(joined, text);
    assert_eq!(deltas, 256, "the rest was joined to the last");
}

#[tokio::test]
async fn a_consumer_that_never_reads_loses_its_stream_at_64_mib() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    let megabyte = "x".repeat(1 << 20);
    for seq in 0..=64 {
        peer.delta(&request, seq, json!({"content": megabyte})).await;
    }
    assert_eq!(peer.next().await["method"], "notifications/cancelled");
    let mut error = None;
    while let Some(delta) = soon(stream.next()).await {
        error = delta.err();
    }
    assert_eq!(error.unwrap().kind(), &ErrorKind::SlowConsumer);
}

#[tokio::test]
async fn a_gap_in_a_stream_ends_it() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    peer.delta(&request, 1, json!({"content": "x"})).await;
    assert_eq!(soon(stream.next()).await.unwrap().unwrap_err().kind(), &ErrorKind::Protocol);
    assert_eq!(peer.next().await["method"], "notifications/cancelled");
}

#[tokio::test]
async fn no_more_requests_are_sent_than_the_worker_takes() {
    let (bridge, mut peer) = Peer::pair_with(json!({"maxMessageBytes": 1000, "maxInFlight": 1})).await;
    let first = bridge.chat_stream(hi()).await.unwrap();
    let second = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.chat(hi()).await }
    });
    let request = peer.next().await;
    drop(first);
    assert_eq!(peer.next().await["method"], "notifications/cancelled");
    peer.fail(&request, -32800, json!({"kind": "cancelled"})).await; // only now is there a place
    let request = peer.next().await;
    peer.respond(&request, said("second")).await;
    assert_eq!(soon(second).await.unwrap().unwrap().text(), "second");
}

#[tokio::test]
async fn a_request_over_the_workers_limit_is_not_sent() {
    let (bridge, mut peer) = Peer::pair_with(json!({"maxMessageBytes": 1000, "maxInFlight": 9})).await;
    let error = bridge.chat(ChatRequest::new("m").user("x".repeat(1000))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidRequest);
    assert!(!error.was_sent() && error.message().contains("1000"), "{error}");
    drop(bridge);
    peer.closed().await;
}

#[tokio::test]
async fn lines_that_are_no_messages_are_skipped() {
    let (bridge, mut peer) = Peer::pair().await;
    let calling = tokio::spawn(async move { bridge.chat(hi()).await });
    let request = peer.next().await;
    peer.raw(b"\r\n\nProvider List: https://example.com\n\xff\xfe\n[]\n{}\n{\"id\":\"1\",\"result\":1}\n").await;
    peer.send(json!({"jsonrpc": "2.0", "method": "notifications/news", "params": {"a": 1}})).await;
    peer.send(json!({"jsonrpc": "2.0", "id": 999_999_999, "result": {}})).await;
    peer.respond(&request, said("fine")).await;
    assert_eq!(soon(calling).await.unwrap().unwrap().text(), "fine");
}

#[tokio::test]
async fn a_peer_that_only_talks_nonsense_is_given_up() {
    let (bridge, mut peer) = Peer::pair().await;
    let calling = tokio::spawn(async move { bridge.chat(hi()).await });
    peer.next().await;
    peer.raw("what?\n".repeat(100).as_bytes()).await;
    let error = soon(calling).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerLost);
    assert!(error.message().contains("what?") && error.was_sent(), "{error}");
}

#[tokio::test]
async fn a_result_of_the_wrong_shape_is_an_error_of_its_call_alone() {
    let (bridge, mut peer) = Peer::pair().await;
    for result in [json!(null), json!({"content": 7}), json!([])] {
        let calling = tokio::spawn({
            let bridge = bridge.clone();
            async move { bridge.chat(hi()).await }
        });
        let request = peer.next().await;
        peer.respond(&request, result).await;
        assert_eq!(soon(calling).await.unwrap().unwrap_err().kind(), &ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn half_a_surrogate_pair_in_a_result_costs_a_character_not_the_answer() {
    let (bridge, mut peer) = Peer::pair().await;
    let calling = tokio::spawn(async move { bridge.chat(hi()).await });
    let request = peer.next().await;
    let line = json!({"jsonrpc": "2.0", "id": request["id"], "result": said("HALF")}).to_string().replace("HALF", r"a\ud83d");
    peer.raw(format!("{line}\n").as_bytes()).await;
    assert_eq!(soon(calling).await.unwrap().unwrap().text(), "a\u{FFFD}");
}

#[tokio::test]
async fn what_the_worker_could_not_read_fails_the_only_call_in_flight() {
    let (bridge, mut peer) = Peer::pair().await;
    let calling = tokio::spawn(async move { bridge.chat(hi()).await });
    peer.next().await;
    peer.fail(&json!({"id": null}), -32700, json!({"kind": "parse_error"})).await;
    assert_eq!(soon(calling).await.unwrap().unwrap_err().kind(), &ErrorKind::ParseError);
}

#[tokio::test]
async fn when_the_peer_goes_calls_fail_and_say_whether_they_were_sent() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut plain = bridge.chat_stream(hi()).await.unwrap();
    let mut begun = bridge.chat_stream(hi()).await.unwrap();
    peer.next().await;
    let request = peer.next().await;
    peer.delta(&request, 0, json!({"content": "x"})).await;
    assert_eq!(soon(begun.next()).await.unwrap().unwrap().text(), "x");
    drop(peer);
    for (stream, retryable) in [(&mut plain, true), (&mut begun, false)] {
        let error = soon(stream.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::WorkerLost);
        assert!(error.was_sent());
        assert_eq!(error.is_retryable(), retryable);
    }
    let error = soon(bridge.chat(hi())).await.unwrap_err();
    assert!(!error.was_sent(), "{error:?}");
}

#[tokio::test]
async fn another_version_is_refused_with_both_named() {
    let (client, mut peer) = Peer::ends();
    let (reader, writer) = tokio::io::split(client);
    let initializing = async {
        let message = peer.next().await;
        let mut result = initialize_result(json!({}));
        result["protocolVersion"] = json!("omni-bridge/2");
        peer.respond(&message, result).await;
    };
    let (bridge, ()) = soon(async { tokio::join!(Bridge::connect(reader, writer), initializing) }).await;
    let error = bridge.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::VersionMismatch);
    assert!(error.message().contains("omni-bridge/1") && error.message().contains("omni-bridge/2"), "{error}");
}

#[tokio::test]
async fn ready_waits_for_the_workers_word() {
    let (bridge, mut peer) = Peer::pair().await;
    assert!(!bridge.workers()[0].initialize_result.engine.ready);
    let waiting = tokio::spawn(async move { bridge.ready().await });
    peer.send(json!({"jsonrpc": "2.0", "method": "notifications/ready", "params": {"engine": {}, "warmMs": 1.0}})).await;
    soon(waiting).await.unwrap().unwrap();
}

const SHORT: Duration = Duration::from_millis(400);

async fn short_tempered_pair() -> (Bridge, Peer) {
    Peer::pair_of(Bridge::builder().hung_after(SHORT), json!({"maxMessageBytes": 1 << 20, "maxInFlight": 9})).await
}

#[tokio::test]
async fn a_worker_that_breaks_its_deadline_and_answers_no_ping_is_lost() {
    let (bridge, mut peer) = Peer::pair_of(Bridge::builder().hung_after(Duration::from_secs(20)), json!({})).await;
    peer.send(json!({"jsonrpc": "2.0", "method": "notifications/ready", "params": {}})).await;
    let (late, other) = (hi().deadlines(Deadlines { total_ms: Some(0), ..Deadlines::default() }), bridge.chat_stream(hi()).await);
    peer.next().await;
    let start = std::time::Instant::now();
    let error = soon(bridge.chat(late)).await.unwrap_err();
    assert_eq!((error.kind(), error.deadline()), (&ErrorKind::Timeout, Some("client")));
    assert!((5..20).contains(&start.elapsed().as_secs()), "its deadline and 5 s more: {:?}", start.elapsed());
    let said = [peer.next().await, peer.next().await, peer.next().await].map(|message| message["method"].clone());
    assert_eq!(said, ["chat", "notifications/cancelled", "ping"]);
    let error = soon(other.unwrap().finish()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerLost);
    assert!(error.message().contains("hangs"), "{error}");
}

#[tokio::test]
async fn a_worker_that_hangs_is_lost_within_seconds_and_says_so() {
    let (bridge, mut peer) = short_tempered_pair().await;
    peer.send(json!({"jsonrpc": "2.0", "method": "notifications/ready", "params": {}})).await;
    soon(bridge.ready()).await.unwrap();
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    peer.delta(&request, 0, json!({"content": "half"})).await;
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().text(), "half");
    assert_eq!(peer.next().await["method"], "ping");
    let error = soon(stream.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerLost);
    assert!(error.message().contains("hangs") && error.message().contains("ping within 0.4 s"), "{error}");
    assert_eq!(error.partial().unwrap().content.as_deref(), Some("half"));
}

#[tokio::test]
async fn a_silent_worker_that_answers_its_pings_keeps_its_requests() {
    let (bridge, mut peer) = short_tempered_pair().await;
    peer.send(json!({"jsonrpc": "2.0", "method": "notifications/ready", "params": {}})).await;
    soon(bridge.ready()).await.unwrap();
    let stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    for _ in 0..3 {
        let ping = peer.next().await;
        assert_eq!(ping["method"], "ping");
        peer.respond(&ping, json!({})).await;
    }
    peer.respond(&request, said("fine")).await;
    assert_eq!(soon(stream.finish()).await.unwrap().text(), "fine");
}

#[tokio::test]
async fn a_worker_that_is_lost_leaves_what_had_come_in_the_error() {
    let (bridge, mut peer) = Peer::pair().await;
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    peer.delta(&request, 0, json!({"content": "Hel"})).await;
    peer.delta(&request, 1, json!({"content": "lo"})).await;
    let call = |function: Value| json!({"tool_calls": [{"index": 0, "id": "c", "function": function}]});
    peer.delta(&request, 2, call(json!({"name": "f", "arguments": "{\"a\""}))).await;
    peer.delta(&request, 3, call(json!({"arguments": ": 1"}))).await;
    for _ in 0..4 {
        soon(stream.next()).await.unwrap().unwrap();
    }
    drop(peer);
    let error = soon(stream.next()).await.unwrap().unwrap_err();
    let partial = error.partial().unwrap();
    assert_eq!((error.kind(), partial.content.as_deref()), (&ErrorKind::WorkerLost, Some("Hello")));
    assert_eq!((partial.tool_calls[0].name(), partial.tool_calls[0].function.arguments.as_str()), ("f", "{\"a\": 1"));
}

#[tokio::test]
async fn a_message_that_cannot_be_read_fails_its_call_and_no_other() {
    let (bridge, mut peer) = Peer::pair().await;
    let broken = [
        r#"{"jsonrpc":"2.0","id":ID,"error":{"code":"x","message":7}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"error":"no"}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"content":"#,
        r#"{"jsonrpc":"2.0","method":"notifications/chat/delta","params":{"requestId":ID,"seq":"x","delta":{}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/chat/delta","params":{"requestId":ID,"seq":0,"delta":[]}}"#,
    ];
    let other = bridge.chat_stream(hi()).await.unwrap();
    let kept = peer.next().await;
    for line in broken {
        let stream = bridge.chat_stream(hi()).await.unwrap();
        let request = peer.next().await;
        peer.raw(format!("{}\n", line.replace("ID", &request["id"].to_string())).as_bytes()).await;
        let error = soon(stream.finish()).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Protocol, "{line}");
        assert_eq!(peer.next().await["method"], "notifications/cancelled", "{line}");
    }
    peer.respond(&kept, said("kept")).await;
    assert_eq!(soon(other.finish()).await.unwrap().text(), "kept");
}

#[tokio::test]
async fn a_minor_version_of_the_protocol_is_accepted() {
    for (version, accepted) in [("omni-bridge/1", true), ("omni-bridge/1.7", true), ("omni-bridge/10", false)] {
        let (client, mut peer) = Peer::ends();
        let (reader, writer) = tokio::io::split(client);
        let initializing = async {
            let message = peer.next().await;
            let mut result = initialize_result(json!({}));
            result["protocolVersion"] = json!(version);
            peer.respond(&message, result).await;
        };
        let (bridge, ()) = soon(async { tokio::join!(Bridge::connect(reader, writer), initializing) }).await;
        assert_eq!(bridge.is_ok(), accepted, "{version}");
    }
}

#[tokio::test]
async fn shutdown_goes_on_when_its_future_is_dropped_and_a_second_call_waits_for_the_same_end() {
    let (bridge, mut peer) = Peer::pair().await;
    let stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    {
        let mut first = std::pin::pin!(bridge.shutdown());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
    }
    peer.closed().await; // the dropped call has closed the worker's input
    let second = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.shutdown().await }
    });
    let mut third = std::pin::pin!(bridge.shutdown());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(third.as_mut().poll(&mut context).is_pending(), "a call is in flight, so the worker has not ended");
    assert!(!second.is_finished());
    peer.respond(&request, said("last")).await;
    drop(peer);
    soon(second).await.unwrap();
    soon(third).await;
    assert_eq!(soon(stream.finish()).await.unwrap().text(), "last");
}

#[test]
fn a_bridge_outlives_the_runtime_that_made_it_and_works_without_one() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (bridge, mut peer) = first.block_on(Peer::pair());
    drop(first);
    let responder = std::thread::spawn(move || {
        runtime().block_on(async {
            for text in ["one", "two"] {
                let request = peer.next().await;
                peer.respond(&request, said(text)).await;
            }
        });
    });
    assert_eq!(runtime().block_on(bridge.chat(hi())).unwrap().text(), "one");
    // No runtime at all: a future needs only its waker.
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut calling = std::pin::pin!(bridge.chat(hi()));
    let response = loop {
        match calling.as_mut().poll(&mut context) {
            std::task::Poll::Ready(response) => break response,
            std::task::Poll::Pending => std::thread::park_timeout(common::WAIT),
        }
    };
    assert_eq!(response.unwrap().text(), "two");
    responder.join().unwrap();
}

#[test]
fn whole_numbers_are_taken_as_they_are_written() {
    let request = hi().max_tokens(500).max_completion_tokens(500).top_logprobs(3).seed(7).temperature(1).top_p(0.5);
    assert_eq!((request.max_tokens, request.top_logprobs, request.temperature), (Some(500), Some(3), Some(1.0)));
    let request = hi().metadata([("run", "7")]).provider_params([("top_k", json!(40))]).logit_bias([("50256", -100)]);
    let wire = serde_json::to_value(&request).unwrap();
    assert_eq!((&wire["metadata"]["run"], &wire["provider_params"]["top_k"]), (&json!("7"), &json!(40)));
    let request = EmbedRequest::new("m", ["text"]).dimensions(256);
    assert_eq!(serde_json::to_value(&request).unwrap()["dimensions"], 256);
    assert_eq!(serde_json::to_value(RerankRequest::new("m", "q", ["d"]).top_n(1)).unwrap()["top_n"], 1);
}

#[tokio::test]
async fn shutdown_lets_calls_in_flight_end_and_refuses_later_ones() {
    let (bridge, mut peer) = Peer::pair().await;
    let stream = bridge.chat_stream(hi()).await.unwrap();
    let request = peer.next().await;
    let ending = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.shutdown().await }
    });
    peer.closed().await;
    assert_eq!(soon(bridge.chat(hi())).await.unwrap_err().kind(), &ErrorKind::Closed);
    peer.respond(&request, said("last")).await;
    drop(peer);
    soon(ending).await.unwrap();
    assert_eq!(soon(stream.finish()).await.unwrap().text(), "last");
}

#[tokio::test]
async fn the_other_methods_ask_as_specified_and_keep_what_they_have_no_name_for() {
    let (bridge, mut peer) = Peer::pair().await;
    let serving = tokio::spawn(async move {
        let mut requests = Vec::new();
        for _ in 0..10 {
            let request = peer.next().await;
            let result = match (request["method"].as_str().unwrap(), request["params"]["cursor"].as_str()) {
                ("models/list", None) => json!({"models": [{"model": "a", "context": 7}], "nextCursor": "2"}),
                ("models/list", _) => json!({"models": [{"model": "b"}], "nextCursor": null}),
                ("models/get", _) => json!({"model": "a", "supports": {"tools": true, "vision": null}, "news": 1}),
                ("tokens/count", _) => json!({"input_tokens": 3, "exact": true, "news": 2}),
                ("embed", _) => json!({"embeddings": [[0.5, 1.0]], "usage": {"input_tokens": 1}, "news": 3}),
                ("rerank", _) => json!({"results": [{"index": 1, "score": 0.5, "news": 4}]}),
                ("config/reload", _) => json!({"models": ["a"], "added": ["a"], "news": 6}),
                ("status", _) => json!({"requests": {"in_flight": 0, "outcomes": {"ok": 2}}, "news": 5}),
                _ => json!({}),
            };
            peer.respond(&request, result).await;
            requests.push(request);
        }
        requests
    });
    let models = bridge.all_models().await.unwrap();
    assert_eq!(models.iter().map(|model| model.model.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(models[0].extra["context"], 7);
    let model = bridge.model("a").await.unwrap();
    assert_eq!((model.supports["tools"], model.supports["vision"], &model.extra["news"]), (Some(true), None, &json!(1)));
    let count = bridge.count_tokens(&hi().tool(omni_bridge_client::Tool::new("f")).temperature(1.0)).await.unwrap();
    assert_eq!((count.input_tokens, count.exact, &count.extra["news"]), (3, true, &json!(2)));
    let embedded = bridge.embed(EmbedRequest::new("e", ["x"])).await.unwrap();
    assert_eq!((embedded.vectors().unwrap(), &embedded.extra["news"]), (vec![vec![0.5, 1.0]], &json!(3)));
    let ranked = bridge.rerank(RerankRequest::new("r", "q", ["x", "y"]).top_n(1u64)).await.unwrap();
    assert_eq!((ranked.results[0].index, &ranked.results[0].extra["news"]), (1, &json!(4)));
    let status = bridge.status().await.unwrap();
    assert_eq!((status[0].requests.outcomes["ok"], &status[0].extra["news"]), (2, &json!(5)));
    let reloaded = bridge.reload_config().await.unwrap();
    assert_eq!((&reloaded[0].added, &reloaded[0].extra["news"]), (&vec!["a".to_owned()], &json!(6)));
    bridge.check(hi()).await.unwrap();
    bridge.ping().await.unwrap();
    let requests: Vec<Value> = soon(serving).await.unwrap();
    let params = |index: usize| requests[index]["params"].clone();
    assert_eq!((params(0), params(1)), (json!({"all": true, "cursor": null}), json!({"all": true, "cursor": "2"})));
    assert_eq!(params(3).as_object().unwrap().keys().collect::<Vec<_>>(), ["model", "messages", "tools"]);
    assert_eq!(params(4), json!({"model": "e", "input": ["x"]}));
    assert_eq!(params(5), json!({"model": "r", "query": "q", "documents": ["x", "y"], "top_n": 1}));
    assert_eq!(requests[8]["method"], "chat/check");
}

#[tokio::test]
async fn a_message_goes_back_as_it_came() {
    let (bridge, mut peer) = Peer::pair().await;
    let raw = r#"{"role":"assistant","content":null,"thinking_blocks":[{"type":"thinking","thinking":"é","signature":"a/b+c=="}],"z":1,"a":1.5}"#;
    let calling = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.chat(hi()).await.unwrap() }
    });
    let request = peer.next().await;
    let line = json!({"jsonrpc": "2.0", "id": request["id"], "result": said("x")}).to_string();
    let message = said("x")["message"].to_string();
    peer.raw(format!("{}\n", line.replace(&message, raw)).as_bytes()).await;
    let response = soon(calling).await.unwrap();
    let stream = bridge.chat_stream(hi().message(response.message).message(Message::tool("1", "ok"))).await.unwrap();
    assert_eq!(peer.next().await["params"]["messages"][1].to_string(), raw);
    drop(stream);
}

#[test]
fn the_handle_goes_wherever_an_agent_takes_it() {
    fn is<T: Send + Sync + Clone + 'static>() {}
    fn is_send<T: Send + 'static>() {}
    is::<Bridge>();
    is_send::<omni_bridge_client::ChatStream>();
    is::<omni_bridge_client::Error>();
}
