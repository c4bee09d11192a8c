//! OpenAI's HTTP API in this process, on the real worker's offline models, and on a worker that the test plays.
#![cfg(feature = "openai")]

mod common;

use bytes::Bytes;
use common::{Peer, said, soon, worker};
use futures_core::Stream;
use http::{Request, Response};
use omni_bridge_client::mock::{Mock, Reply};
use omni_bridge_client::openai::{Body, OpenAi};
use serde_json::{Value, json};

fn post(path: &str, body: &Value) -> Request<Bytes> {
    Request::post(path).body(Bytes::from(body.to_string())).unwrap()
}

fn hi() -> Value {
    json!({"model": "offline/echo", "messages": [{"role": "user", "content": "one two three"}]})
}

async fn read(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let mut body = std::pin::pin!(response.into_body());
    let mut text = String::new();
    while let Some(Ok(bytes)) = soon(std::future::poll_fn(|context| body.as_mut().poll_next(context))).await {
        text += std::str::from_utf8(&bytes).unwrap();
    }
    (status, text)
}

async fn json_of(response: Response<Body>) -> (u16, Value) {
    let (status, text) = read(response).await;
    (status, serde_json::from_str(&text).unwrap())
}

fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn chat_completions_embeddings_responses_and_models_are_served_by_the_real_worker() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let openai = OpenAi::new(&bridge);

    let (status, whole) = json_of(openai.respond(post("/v1/chat/completions", &hi())).await).await;
    assert_eq!(
        (status, &whole["object"], &whole["choices"][0]["message"]["content"]),
        (200, &json!("chat.completion"), &json!("one two three"))
    );
    assert_eq!((&whole["choices"][0]["finish_reason"], &whole["usage"]["prompt_tokens"]), (&json!("stop"), &json!(3)));
    assert_eq!(whole["omni_bridge"]["cost_usd"], 0.0);

    let mut streamed = hi();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let (status, text) = read(openai.respond(post("/chat/completions", &streamed)).await).await;
    let chunks = events(&text);
    assert_eq!(status, 200);
    let joined: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(joined, "one two three");
    assert!(text.ends_with("data: [DONE]\n\n") && chunks[0]["choices"][0]["delta"]["role"] == "assistant");
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[chunks.len() - 1]["usage"]["completion_tokens"], 3);

    let request = post("/v1/embeddings", &json!({"model": "offline/embed", "input": "hello"}));
    let (status, embedded) = json_of(openai.respond(request).await).await;
    assert!(status == 200 && embedded["data"][0]["embedding"][0].is_number(), "{embedded}");

    let request = json!({"model": "offline/echo", "instructions": "echo", "input": "one two", "max_output_tokens": 9});
    let (status, response) = json_of(openai.respond(post("/v1/responses", &request)).await).await;
    assert_eq!(
        (status, &response["status"], &response["output"][0]["content"][0]["text"]),
        (200, &json!("completed"), &json!("one two"))
    );
    let mut request = request;
    request["stream"] = json!(true);
    let (_, text) = read(openai.respond(post("/v1/responses", &request)).await).await;
    let kinds: Vec<_> = events(&text).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.first().map(String::as_str), Some("response.created"));
    assert_eq!(kinds.iter().filter(|kind| *kind == "response.output_text.delta").count(), 2);
    assert_eq!(kinds.last().map(String::as_str), Some("response.completed"));

    let (status, models) = json_of(openai.respond(Request::get("/v1/models").body(Bytes::new()).unwrap()).await).await;
    assert!(status == 200 && models["data"].as_array().unwrap().iter().any(|model| model["id"] == "offline/echo"));
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn tools_go_round_in_both_apis() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let openai = OpenAi::new(&bridge);
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = json!({"name": "weather", "parameters": parameters});
    let user = json!({"role": "user", "content": "What is the weather in Brno?"});
    let mut request = json!({"model": "offline/tools", "messages": [user], "tools": [{"type": "function", "function": function}]});
    let (_, whole) = json_of(openai.respond(post("/v1/chat/completions", &request)).await).await;
    let message = whole["choices"][0]["message"].clone();
    let call = message["tool_calls"][0].clone();
    assert_eq!(
        (&whole["choices"][0]["finish_reason"], &call["function"]["arguments"]),
        (&json!("tool_calls"), &json!(r#"{"city": "Brno"}"#))
    );
    let messages = request["messages"].as_array_mut().unwrap();
    messages.extend([message, json!({"role": "tool", "tool_call_id": call["id"], "content": "sunny"})]);
    let (_, whole) = json_of(openai.respond(post("/v1/chat/completions", &request)).await).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "sunny");

    let tool = json!({"type": "function", "name": "weather", "parameters": parameters, "strict": null});
    let mut request = json!({"model": "offline/tools", "input": "What is the weather in Brno?", "tools": [tool], "stream": true});
    let (_, text) = read(openai.respond(post("/v1/responses", &request)).await).await;
    let events = events(&text);
    let arguments: String = events
        .iter()
        .filter(|event| event["type"] == "response.function_call_arguments.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(arguments, r#"{"city": "Brno"}"#);
    let call = events.last().unwrap()["response"]["output"][0].clone();
    assert_eq!((&call["type"], &call["arguments"]), (&json!("function_call"), &json!(arguments)));
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"});
    request["input"] = json!([{"role": "user", "content": [{"type": "input_text", "text": "weather?"}]}, call, output]);
    request["stream"] = json!(false);
    let (_, response) = json_of(openai.respond(post("/v1/responses", &request)).await).await;
    assert_eq!(response["output"][0]["content"][0]["text"], "sunny");
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn errors_have_openais_status_and_shape() {
    let (bridge, mut peer) = Peer::pair().await;
    let openai = OpenAi::new(&bridge);
    for (kind, code, stream, status) in
        [("rate_limited", 1007, false, 429), ("authentication", 1001, true, 401), ("context_length_exceeded", 1005, true, 400)]
    {
        let mut request = hi();
        request["stream"] = json!(stream);
        let serving = openai.respond(post("/v1/chat/completions", &request));
        let failing = async {
            let request = peer.next().await;
            peer.fail(&request, code, json!({"kind": kind, "retryable": true, "retry_after_ms": 1500})).await;
        };
        let (response, ()) = soon(async { tokio::join!(serving, failing) }).await;
        assert_eq!(response.headers()["retry-after"], "2");
        let (found, error) = json_of(response).await;
        assert_eq!((found, &error["error"]["code"]), (status, &json!(kind)));
    }
    let refused = [
        ("/v1/chat/completions", json!({"model": "m", "messages": [], "n": 2}), 400, "n:"),
        ("/v1/chat/completions", json!([]), 400, "JSON object"),
        ("/v1/responses", json!({"model": "m", "input": "x", "previous_response_id": "r"}), 400, "previous_response_id"),
        ("/v1/responses", json!({"model": "m", "input": ["x"]}), 400, "object"),
        ("/v1/responses", json!({"model": "m", "input": "x", "tools": [{"type": "web_search"}]}), 400, "web_search"),
        ("/v1/embeddings", json!({"model": "m", "input": [[1, 2]]}), 400, "input"),
        ("/v1/images", json!({}), 404, "/v1/images"),
    ];
    for (path, request, status, named) in refused {
        let (found, error) = json_of(openai.respond(post(path, &request)).await).await;
        assert_eq!(found, status, "{path} {request}");
        assert!(error["error"]["message"].as_str().unwrap().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_event_and_a_dropped_one_is_cancelled() {
    let (bridge, mut peer) = Peer::pair().await;
    let openai = OpenAi::new(&bridge);
    let mut request = hi();
    request["stream"] = json!(true);
    let serving = openai.respond(post("/v1/chat/completions", &request));
    let beginning = async {
        let request = peer.next().await;
        peer.delta(&request, 0, json!({"content": "half"})).await;
        request
    };
    let (response, sent) = soon(async { tokio::join!(serving, beginning) }).await;
    peer.fail(&sent, 1014, json!({"kind": "stream_interrupted"})).await;
    let (status, text) = read(response).await;
    let events = events(&text);
    assert_eq!(
        (status, &events[0]["choices"][0]["delta"]["content"], &events[1]["error"]["code"]),
        (200, &json!("half"), &json!("stream_interrupted"))
    );

    let serving = openai.respond(post("/v1/chat/completions", &request));
    let beginning = async {
        let request = peer.next().await;
        peer.delta(&request, 0, json!({"content": "half"})).await;
        request
    };
    let (response, sent) = soon(async { tokio::join!(serving, beginning) }).await;
    drop(response);
    let cancel = peer.next().await;
    assert_eq!((&cancel["method"], &cancel["params"]["requestId"]), (&json!("notifications/cancelled"), &sent["id"]));
}

#[tokio::test]
async fn a_response_of_another_worker_has_only_values_that_openais_clients_know() {
    let usage = json!({"input_tokens": 3, "output_tokens": 2});
    let reply = Reply::text("hi").with("finish_reason", "paused").with("tool_calls", Value::Null).with("usage", usage);
    let bridge = soon(Mock::new().reply(reply.clone()).reply(reply).spawn()).await.unwrap();
    let openai = OpenAi::new(&bridge);
    let (_, whole) = json_of(soon(openai.respond(post("/v1/chat/completions", &hi()))).await).await;
    assert_eq!((&whole["choices"][0]["finish_reason"], &whole["usage"]["total_tokens"]), (&json!("stop"), &json!(5)));
    let mut request = hi();
    request["stream"] = json!(true);
    let (_, text) = read(soon(openai.respond(post("/v1/chat/completions", &request))).await).await;
    assert_eq!(events(&text).last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn it_is_a_tower_service_for_any_body() {
    use tower_service::Service;

    struct Chunks(Vec<&'static str>);
    impl http_body::Body for Chunks {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            let next = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
            std::task::Poll::Ready(next.map(|text| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())))))
        }
    }
    let (bridge, mut peer) = Peer::pair().await;
    let mut service = OpenAi::new(&bridge);
    let body = Chunks(vec![r#"{"model": "m", "#, r#""messages": []}"#]);
    let serving = service.call(Request::post("/v1/chat/completions").body(body).unwrap());
    let responder = async {
        let request = peer.next().await;
        peer.respond(&request, said("fine")).await;
    };
    let (response, ()) = soon(async { tokio::join!(serving, responder) }).await;
    assert_eq!(json_of(response.unwrap()).await.1["choices"][0]["message"]["content"], "fine");
}
