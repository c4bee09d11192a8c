//! The examples do what they say, on the real worker.
#![allow(dead_code, unreachable_pub, reason = "the examples' mains are not called here")]

#[path = "../../tests/common/mod.rs"]
mod common;

#[path = "../examples/agent.rs"]
mod agent;
#[path = "../examples/async_openai.rs"]
mod async_openai;
#[path = "../examples/axum_sse.rs"]
mod axum_sse;
#[path = "../examples/batch.rs"]
mod batch;
#[path = "../examples/rig.rs"]
mod rig;

use common::{soon, worker};
use omni_bridge_client::mock::{Mock, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod agents {
    use std::path::Path;

    use omni_bridge_client::{ToolCall, ToolSet};
    use rmcp::handler::server::wrapper::Parameters;
    use rmcp::model::{ServerCapabilities, ServerConfig};
    use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};

    use super::*;

    #[tokio::test]
    async fn the_agent_runs_its_tools_and_answers() {
        let bridge = soon(worker().spawn()).await.unwrap();
        let answered = soon(agent::answer(&bridge, "offline/tools", "What is 6 * 7?", &agent::tools())).await.unwrap();
        assert_eq!(answered, "42.0");
        soon(bridge.shutdown()).await;
    }

    /// SmolLM2 is small and may write anything; what counts is that the loop comes to its end with a real model's words.
    #[tokio::test]
    async fn the_agent_runs_on_a_model_of_this_machine() {
        let template = common::repository().join("tests/tools.jinja"); // its own template knows no tools
        let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("local.yaml");
        let settings = format!("{{chat_template: '{}', context_tokens: 1024}}", template.display());
        std::fs::write(&config, format!("omni_bridge: {{local: {{smollm2: {settings}}}}}\n")).unwrap();
        let bridge = soon(worker().local_models().config(&config).spawn()).await.unwrap();
        match soon(agent::answer(&bridge, "local/smollm2", "What is 2 * 3?", &agent::tools())).await {
            Ok(text) => assert!(!text.trim().is_empty(), "the model responded with nothing"),
            Err(error) => assert_eq!(error.kind(), &omni_bridge_client::ErrorKind::TurnLimit, "{error}"),
        }
        soon(bridge.shutdown()).await;
    }

    #[test]
    fn the_agent_is_a_page_long() {
        let lines = include_str!("../examples/agent.rs").lines().count();
        assert!(lines < 120, "{lines} lines");
    }

    struct Server;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Greeting {
        name: String,
    }

    #[tool_router]
    impl Server {
        #[tool(description = "Greets somebody by name")]
        async fn greet(&self, Parameters(Greeting { name }): Parameters<Greeting>) -> Result<String, String> {
            if name == "Nobody" { Err("there is nobody".to_owned()) } else { Ok(format!("hello, {name}")) }
        }
    }

    #[tool_handler]
    impl ServerHandler for Server {
        fn get_info(&self) -> ServerConfig {
            ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
        }
    }

    #[tokio::test]
    async fn the_tools_of_an_mcp_server_run_with_the_agents_own() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(async move { Server.serve(server).await.unwrap().waiting().await });
        let client = soon(().serve(client)).await.unwrap();
        let tools = soon(ToolSet::new().mcp(client.peer())).await.unwrap();
        let listed = tools.tools().next().unwrap().clone();
        assert_eq!(
            (listed.function.name.as_str(), listed.function.description.as_deref()),
            ("greet", Some("Greets somebody by name"))
        );
        assert_eq!(listed.function.parameters.unwrap()["required"], serde_json::json!(["name"]));

        let bridge = soon(worker().spawn()).await.unwrap();
        assert_eq!(soon(agent::answer(&bridge, "offline/tools", "Greet our friend Ada", &tools)).await.unwrap(), "hello, Ada");
        assert_eq!(
            soon(agent::answer(&bridge, "offline/tools", "Greet our friend Nobody", &tools)).await.unwrap(),
            "error: there is nobody"
        );
        let mut call = ToolCall::default();
        call.function.name = "greet".into();
        call.function.arguments = "[]".into();
        assert!(soon(tools.call(&call)).await.unwrap_err().contains("do not fit"));
        soon(bridge.shutdown()).await;
        drop(client);
        soon(serving).await.unwrap().unwrap();
    }
}

mod rig_agents {
    use ::rig::completion::CompletionRequest;

    use super::*;

    #[tokio::test]
    async fn a_rig_agent_runs_its_tool_through_the_bridge() {
        let bridge = soon(worker().spawn()).await.unwrap();
        assert_eq!(soon(rig::answer(&bridge, "offline/tools", "What is 6 times 7?")).await.unwrap(), "42.0");
        soon(bridge.shutdown()).await;
    }

    #[tokio::test]
    async fn a_rig_model_streams_embeds_and_fails_with_its_status() {
        use ::rig::agent::MultiTurnStreamItem;

        let bridge = soon(worker().spawn()).await.unwrap();
        let client = bridge.rig();
        let agent = ::rig::AgentBuilder::new(client.completion("offline/echo")).build();
        let mut stream = soon(async { agent.prompt("one two three").stream() }).await;
        let (mut items, mut last) = (0, None);
        while let Some(item) =
            soon(std::future::poll_fn(|context| futures_core::Stream::poll_next(std::pin::Pin::new(&mut stream), context))).await
        {
            items += 1;
            if let MultiTurnStreamItem::FinalResponse(response) = item.unwrap() {
                last = Some(response.output());
            }
        }
        assert!(items > 3, "{items}");
        assert_eq!(last.as_deref(), Some("one two three"));
        let failed = client.completion("offline/none").call(CompletionRequest::new("hi")).await.unwrap_err();
        assert!(failed.to_string().contains("404") || format!("{failed:?}").contains("404"), "{failed:?}");
        soon(bridge.shutdown()).await;
    }

    #[tokio::test]
    async fn a_dropped_rig_call_is_cancelled() {
        let mock = Mock::new().script(|_: &omni_bridge_client::ChatRequest| Reply::hang());
        let bridge = mock.spawn().await.unwrap();
        let model = bridge.rig().completion("any/model");
        tokio::select! {
            _ = model.call(CompletionRequest::new("hi")) => panic!("it hangs"),
            () = common::until("it is sent", || mock.requests().len() == 1) => {}
        }
        common::until("it is cancelled", || mock.cancelled() == 1).await;
    }
}

mod openai_clients {
    use ::async_openai::types::chat::{ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs};
    use ::async_openai::types::embeddings::CreateEmbeddingRequestArgs;
    use ::async_openai::types::responses::CreateResponseArgs;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn async_openai_chats_streams_embeds_and_responds_through_the_bridge() {
        let bridge = soon(worker().spawn()).await.unwrap();
        assert_eq!(soon(async_openai::answer(&bridge, "offline/echo", "hello there")).await.unwrap(), "hello there");
        assert_eq!(soon(async_openai::streamed(&bridge, "offline/echo", "a b c")).await.unwrap(), ["a", " b", " c"]);
        let error = soon(async_openai::answer(&bridge, "offline/none", "hi")).await.unwrap_err();
        assert!(error.to_string().contains("offline/none"), "{error}");

        let client = bridge.async_openai();
        let request = CreateEmbeddingRequestArgs::default().model("offline/embed").input("hello").build().unwrap();
        assert!(!soon(client.embeddings().create(request)).await.unwrap().data[0].embedding.is_empty());

        let request = CreateResponseArgs::default().model("offline/echo").input("one two").build().unwrap();
        let response = soon(client.responses().create(request)).await.unwrap();
        assert_eq!(response.output_text().as_deref(), Some("one two"));
        soon(bridge.shutdown()).await;
    }

    #[tokio::test]
    async fn async_openai_calls_tools_and_streams_responses() {
        let bridge = soon(worker().spawn()).await.unwrap();
        let client = bridge.async_openai();
        let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
        let request = CreateChatCompletionRequestArgs::default()
            .model("offline/tools")
            .messages([ChatCompletionRequestUserMessage::from("What is the weather in Brno?").into()])
            .tools(vec![serde_json::from_value(tool).unwrap()])
            .build()
            .unwrap();
        let response = soon(client.chat().create(request)).await.unwrap();
        let calls = serde_json::to_value(&response.choices[0].message.tool_calls).unwrap();
        assert_eq!(calls[0]["function"]["arguments"], r#"{"city": "Brno"}"#);

        let request = CreateResponseArgs::default().model("offline/echo").input("one two").stream(true).build().unwrap();
        let mut stream = soon(client.responses().create_stream(request)).await.unwrap();
        let mut kinds = Vec::new();
        while let Some(event) =
            soon(std::future::poll_fn(|context| futures_core::Stream::poll_next(std::pin::Pin::new(&mut stream), context))).await
        {
            kinds.push(serde_json::to_value(event.unwrap()).unwrap()["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(kinds.iter().filter(|kind| *kind == "response.output_text.delta").count(), 2);
        assert_eq!(kinds.last().map(String::as_str), Some("response.completed"));
        soon(bridge.shutdown()).await;
    }

    #[tokio::test]
    async fn a_dropped_stream_of_async_openai_is_cancelled() {
        let mock = Mock::new().reply(Reply::hang().deltas([json!({"content": "half"})]));
        let bridge = mock.spawn().await.unwrap();
        let message = ChatCompletionRequestUserMessage::from("hi").into();
        let request = CreateChatCompletionRequestArgs::default().model("m").messages([message]).build().unwrap();
        let stream = soon(bridge.async_openai().chat().create_stream(request)).await.unwrap();
        drop(stream);
        common::until("it is cancelled", || mock.cancelled() == 1).await;
    }
}

#[tokio::test]
async fn the_web_server_streams_text_as_events_and_cancels_for_a_reader_that_goes_away() {
    let mock = Mock::new().reply("one two").reply(Reply::hang().deltas([serde_json::json!({"content": "half"})]));
    let bridge = mock.spawn().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, axum_sse::router(bridge)).await });
    let request = b"GET /?prompt=one+two HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut text = String::new();
    soon(socket.read_to_string(&mut text)).await.unwrap();
    assert!(text.contains("data: one") && text.contains("data: two") && text.contains("text/event-stream"), "{text}");
    assert_eq!(mock.requests()[0].messages[0].text().as_deref(), Some("one two"));

    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("half") {
        soon(socket.read_buf(&mut seen)).await.unwrap();
    }
    drop(socket);
    common::until("it is cancelled", || mock.cancelled() == 1).await;
    serving.abort();
}

#[tokio::test]
async fn a_batch_of_a_thousand_prompts_comes_back_in_order() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let prompts: Vec<String> = (0..1000).map(|number| format!("prompt {number}")).collect();
    let bar = indicatif::ProgressBar::hidden();
    let results = soon(batch::run(&bridge, "offline/echo", prompts.clone(), &bar)).await;
    assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), prompts);
    assert_eq!(bar.position(), 1000);
    soon(bridge.shutdown()).await;
}
