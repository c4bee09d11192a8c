//! What an agent author builds on: tools, tool runs, typed responses, the mock bridge, retries, spans, the blocking API.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{soon, until, worker};
use omni_bridge_client::mock::{Mock, Reply};
use omni_bridge_client::types::{Fit, FitStrategy, ProblemKind, Task};
use omni_bridge_client::{
    Bridge, BridgeBuilder, BudgetLimit, ChatRequest, Deadlines, ErrorKind, Message, RetryPolicy, Step, Tool, ToolCall, ToolSet,
    blocking,
};
use serde_json::{Value, json};

fn hi() -> ChatRequest {
    ChatRequest::new("m").user("hi")
}

fn product() -> ToolSet {
    let number = json!({"type": "number"});
    let tool = Tool::new("multiply").description("Multiplies").parameters(json!({
        "type": "object", "properties": {"left": number, "right": number}, "required": ["left", "right"],
    }));
    #[derive(serde::Deserialize)]
    struct Product {
        left: f64,
        right: f64,
    }
    ToolSet::new().tool(tool, |product: Product| async move { Ok::<_, String>(product.left * product.right) })
}

// --- faults on purpose -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_agent_sees_each_card_of_the_ready_file_as_the_kind_that_the_file_documents() {
    let file = common::repository().join("docs/resilience.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let value = |line: &str, name: &str| line.trim().strip_prefix(name).map(|value| value.trim().to_owned());
    let documented: Vec<String> = text.lines().filter_map(|line| value(line, "sees:")).collect();
    assert!(documented.len() >= 20);
    let bridge = soon(worker().faults(&file).spawn()).await.unwrap();
    let mut seen = Vec::new();
    for kind in documented.iter().flat_map(|kind| ["ok", kind]) {
        let patience = Duration::from_millis(if kind == "timeout" { 100 } else { 20_000 });
        let tool = Tool::new("weather").parameters(json!({"type": "object", "properties": {"city": {}}}));
        let request = ChatRequest::new("offline/echo").user("one two three four five").tool(tool);
        let stream = bridge.chat_stream(request.deadlines(Deadlines::total(patience))).await.unwrap();
        seen.push(match soon(stream.finish()).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.kind().to_string(),
        });
    }
    let expected: Vec<String> = documented.into_iter().flat_map(|kind| ["ok".to_owned(), kind]).collect();
    assert_eq!(seen, expected);
    bridge.shutdown().await;
}

// --- tool runs ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_tool_run_on_the_real_worker_multiplies() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let tools = product();
    for is_streamed in [false, true] {
        let mut deltas = 0;
        let run = bridge.run_tools(ChatRequest::new("offline/tools").user("What is 6 times 7?"), &tools);
        let run = if is_streamed { run.streamed() } else { run };
        let done = soon(run.on_step(|step| deltas += usize::from(matches!(step, Step::Delta { .. }))).into_future()).await.unwrap();
        assert_eq!((done.response.text(), done.turns, done.cost_usd), ("42.0", 2, Some(0.0)));
        assert_eq!(done.request.messages.len(), 4);
        assert_eq!(deltas > 0, is_streamed);
    }
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn the_calls_of_a_turn_run_in_parallel_and_their_results_keep_their_order() {
    let calls = Reply::tool_calls([("wait", json!({"name": "a"})), ("wait", json!({"name": "b"})), ("nothing", json!({}))]);
    let mock = Mock::new().reply(calls).reply("done");
    let bridge = mock.spawn().await.unwrap();
    let barrier = Arc::new(tokio::sync::Barrier::new(2)); // neither ends before both have begun
    let tools = ToolSet::new().tool(Tool::new("wait"), move |arguments: Value| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            if arguments["name"] == "b" { Err("b is broken".to_owned()) } else { Ok("a is fine") }
        }
    });
    let steps = Mutex::new(Vec::new());
    let observe = |step: Step<'_>| {
        let seen = match step {
            Step::Request { turn, request } => format!("{turn} request of {}", request.messages.len()),
            Step::Response { turn, response } => format!("{turn} response with {}", response.tool_calls.len()),
            Step::ToolCall { turn, call } => format!("{turn} call {}", call.name()),
            Step::ToolResult { turn, call, result } => format!("{turn} {} {}", call.name(), result.is_ok()),
            other => format!("{other:?}"),
        };
        steps.lock().unwrap().push(seen);
    };
    let done = soon(bridge.run_tools(hi(), &tools).on_step(observe).into_future()).await.unwrap();
    assert_eq!(done.response.text(), "done");
    let sent = &mock.requests()[1].messages;
    let texts: Vec<_> = sent[2..].iter().map(|message| message.text().unwrap()).collect();
    assert_eq!(texts, ["a is fine", "error: b is broken", "error: unknown tool \"nothing\"; known: wait"]);
    let mut steps = steps.into_inner().unwrap();
    assert_eq!(steps[..5], ["1 request of 1", "1 response with 3", "1 call wait", "1 call wait", "1 call nothing"]);
    steps[5..8].sort();
    assert_eq!(steps[5..], ["1 nothing false", "1 wait false", "1 wait true", "2 request of 5", "2 response with 0"]);
}

#[tokio::test]
async fn a_tool_run_has_a_bound_on_its_turns_and_drops_a_forced_choice_after_the_first() {
    let mock = Mock::new().script(|_: &ChatRequest| Reply::tool_call("multiply", json!({"left": 1, "right": "x"})));
    let bridge = mock.spawn().await.unwrap();
    let tools = product();
    let request = hi().tool_choice(omni_bridge_client::ToolChoice::Required);
    let error = soon(bridge.run_tools(request, &tools).max_turns(3).into_future()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::TurnLimit);
    let requests = mock.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[1].tool_choice, None);
    assert!(requests[1].messages[2].text().unwrap().starts_with("error: the arguments of multiply do not fit"));
}

#[tokio::test]
async fn a_dropped_tool_run_cancels_its_chat_or_its_tools() {
    let mock = Mock::new().reply(Reply::hang());
    let bridge = mock.spawn().await.unwrap();
    let tools = product();
    let sent = async { until("it is sent", || mock.requests().len() == 1).await };
    tokio::select! {
        _ = bridge.run_tools(hi(), &tools).into_future() => panic!("it hangs"),
        () = sent => {}
    }
    until("it is cancelled", || mock.cancelled() == 1).await;

    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (begun, dropped) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicUsize::new(0)));
    let tool = {
        let (begun, dropped) = (Arc::clone(&begun), Arc::clone(&dropped));
        move |_: Value| {
            let (begun, guard) = (Arc::clone(&begun), Dropped(Arc::clone(&dropped)));
            async move {
                let _guard = guard;
                begun.notify_one();
                std::future::pending::<Result<String, String>>().await
            }
        }
    };
    let bridge = Mock::new().reply(Reply::tool_call("forever", json!({}))).spawn().await.unwrap();
    let tools = ToolSet::new().tool(Tool::new("forever"), tool);
    tokio::select! {
        _ = bridge.run_tools(hi(), &tools).into_future() => panic!("it never ends"),
        () = begun.notified() => {}
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[cfg(feature = "schema")]
mod typed {
    use super::*;

    #[derive(Debug, PartialEq, schemars::JsonSchema, serde::Deserialize)]
    struct City {
        /// As its inhabitants call it
        name: String,
        size: Option<u32>,
    }

    #[tokio::test]
    async fn a_function_of_a_type_is_a_tool_with_its_schema() {
        let bridge = soon(worker().spawn()).await.unwrap();
        async fn weather(city: City) -> Result<Value, std::io::Error> {
            Ok(json!({"city": city.name, "sky": "clear"}))
        }
        let tools = ToolSet::new().function("weather", "The weather of a city", weather);
        let schema = tools.tools().next().unwrap().function.parameters.clone().unwrap();
        assert_eq!(schema["properties"]["name"]["description"], "As its inhabitants call it");
        assert_eq!(schema["required"], json!(["name"]));
        let run = bridge.run_tools(ChatRequest::new("offline/tools").user("What is the weather in Brno?"), &tools);
        assert_eq!(soon(run.into_future()).await.unwrap().response.text(), r#"{"city":"Brno","sky":"clear"}"#);
        soon(bridge.shutdown()).await;
    }

    #[tokio::test]
    async fn a_response_is_a_type_or_an_error_with_its_text() {
        let mock = Mock::new().reply(r#"{"name": "Brno", "size": 400}"#).reply("Brno, I think");
        let bridge = mock.spawn().await.unwrap();
        assert_eq!(bridge.chat_as::<City>(hi()).await.unwrap(), City { name: "Brno".into(), size: Some(400) });
        let format = mock.requests()[0].response_format.clone().unwrap();
        assert_eq!(format["json_schema"]["schema"]["required"], json!(["name", "size"]));
        let error = bridge.chat_as::<City>(hi()).await.unwrap_err();
        assert_eq!((error.kind(), error.partial().unwrap().content.as_deref()), (&ErrorKind::Parse, Some("Brno, I think")));
        assert!(error.message().contains("City"), "{error}");
    }
}

// --- the mock bridge ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_mock_bridge_plays_texts_streams_calls_errors_and_a_script() {
    let mock = Mock::new()
        .reply("one two three")
        .reply(Reply::text("priced").with("cost_usd", 0.5).with("usage", json!({"input_tokens": 3, "output_tokens": null, "total_tokens": null, "cached_input_tokens": null, "cache_write_tokens": null, "reasoning_tokens": null})))
        .reply(Reply::tool_calls([("f", json!({"a": 1})), ("g", json!({}))]))
        .reply(Reply::error(ErrorKind::RateLimited).retry_after(Duration::from_secs(2)))
        .script(|request: &ChatRequest| Reply::text(format!("scripted {}", request.messages.len())));
    let bridge = mock.spawn().await.unwrap();
    let mut texts = bridge.chat_stream(hi()).await.unwrap().text();
    let mut heard = Vec::new();
    while let Some(text) = soon(texts.next()).await {
        heard.push(text.unwrap());
    }
    assert_eq!(heard, ["one ", "two ", "three"]);
    assert_eq!(soon(texts.finish()).await.unwrap().text(), "one two three");
    let priced = bridge.chat(&hi()).await.unwrap();
    assert_eq!((priced.cost_usd, priced.usage.unwrap().input_tokens), (Some(0.5), Some(3)));
    let calls = soon(bridge.chat_stream(hi()).await.unwrap().collect()).await.unwrap().tool_calls;
    assert_eq!(calls.iter().map(ToolCall::name).collect::<Vec<_>>(), ["f", "g"]);
    let error = bridge.chat(hi()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (&ErrorKind::RateLimited, Some(Duration::from_secs(2))));
    assert_eq!(bridge.chat(hi().message(Message::user("more"))).await.unwrap().text(), "scripted 2");
    assert_eq!(mock.requests().len(), 5);
    let error = Mock::new().spawn().await.unwrap().chat(hi()).await.unwrap_err();
    assert!(error.message().contains("no reply left"), "{error}");
}

#[tokio::test]
async fn a_mock_bridge_has_results_of_other_methods() {
    let bridge = Mock::new().result("tokens/count", json!({"input_tokens": 9, "exact": true})).spawn().await.unwrap();
    for _ in 0..2 {
        assert_eq!(bridge.count_tokens(&hi()).await.unwrap().input_tokens, 9);
    }
    let error = bridge.model("any/model").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::MethodNotFound);
    assert!(error.message().contains("models/get") && error.message().contains("Mock::result"), "{error}");
}

#[tokio::test]
async fn a_mock_bridge_hangs_until_it_is_cancelled() {
    let mock = Mock::new().reply(Reply::hang().deltas([json!({"content": "half"})]));
    let bridge = mock.spawn().await.unwrap();
    let mut stream = bridge.chat_stream(hi()).await.unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().text(), "half");
    let error = soon(stream.cancel()).await.unwrap_err();
    assert_eq!((error.kind(), error.upstream_closed()), (&ErrorKind::Cancelled, Some(true)));
    assert_eq!(mock.cancelled(), 1);
}

/// In their thousands: nothing here has a queue without a bound, and each finds its own response.
#[tokio::test]
async fn ten_thousand_chats_at_once_each_get_their_response() {
    let mock = Mock::new().script(|request: &ChatRequest| Reply::text(request.messages[0].text().unwrap()));
    let bridge = mock.spawn().await.unwrap();
    let mut chats = tokio::task::JoinSet::new();
    for number in 0..10_000 {
        let bridge = bridge.clone();
        chats.spawn(async move {
            let text = number.to_string();
            let response = bridge.chat(ChatRequest::new("m").user(&text)).await.unwrap();
            assert_eq!(response.text(), text);
        });
    }
    soon(async {
        while let Some(done) = chats.join_next().await {
            done.unwrap()
        }
    })
    .await;
    assert_eq!(bridge.workers()[0].in_flight, 0);
}

// --- retries -----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn nothing_is_retried_unless_a_policy_says_so() {
    let limited = || Reply::error(ErrorKind::RateLimited).retry_after(Duration::from_millis(1));
    let mock = Mock::new().reply(limited());
    assert!(mock.spawn().await.unwrap().chat(hi()).await.is_err());
    assert_eq!(mock.requests().len(), 1);

    let policy = || RetryPolicy::new(2).backoff(Duration::from_millis(1), Duration::from_millis(2));
    let mock = Mock::new().reply(limited()).reply(limited()).reply("third");
    let bridge = mock.spawn_with(Bridge::builder().retry(policy())).await.unwrap();
    assert_eq!(soon(bridge.chat(hi())).await.unwrap().text(), "third");

    let mock = Mock::new().script(move |_: &ChatRequest| limited());
    let bridge = mock.spawn_with(Bridge::builder().retry(policy())).await.unwrap();
    assert_eq!(soon(bridge.chat(hi())).await.unwrap_err().kind(), &ErrorKind::RateLimited);
    assert_eq!(mock.requests().len(), 3);

    let mock = Mock::new().reply(Reply::error(ErrorKind::Authentication));
    let bridge = mock.spawn_with(Bridge::builder().retry(policy())).await.unwrap();
    assert_eq!(soon(bridge.chat(hi())).await.unwrap_err().kind(), &ErrorKind::Authentication);
    assert_eq!(mock.requests().len(), 1);
}

// --- the blocking API --------------------------------------------------------------------------------------------------------

#[test]
fn the_blocking_api_needs_no_runtime() {
    let bridge = blocking::Bridge::spawn_with(worker()).unwrap();
    let request = ChatRequest::new("offline/echo").user("one two");
    assert_eq!(bridge.chat(&request).unwrap().text(), "one two");
    let texts: Vec<String> = bridge.chat_stream(&request).unwrap().text().map(Result::unwrap).collect();
    assert_eq!(texts, ["one", " two"]);
    let mut stream = bridge.chat_stream(&request).unwrap();
    assert_eq!(stream.by_ref().count(), 2);
    assert_eq!(stream.response().unwrap().text(), "one two");
    let tools = product();
    let run = bridge.as_async().run_tools(ChatRequest::new("offline/tools").user("3 times 4"), &tools);
    assert_eq!(bridge.run(run).unwrap().response.text(), "12.0");
    assert!(bridge.models().unwrap().iter().any(|model| model.model == "offline/echo"));
    bridge.shutdown();
    assert_eq!(bridge.chat(&request).unwrap_err().kind(), &ErrorKind::Closed);
}

// --- settings ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_setting_of_the_worker_has_a_method() {
    let run = tokio::process::Command::new(common::worker_command()).args(["--stdio", "--print-config"]).output();
    let output = soon(run).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let section =
        text.lines().skip_while(|line| !line.starts_with("omni_bridge:")).skip(1).take_while(|line| line.starts_with(' '));
    let names: Vec<&str> =
        section.filter(|line| !line.starts_with("   ")).filter_map(|line| line.trim().split(':').next()).collect();
    assert!(names.len() > 10, "{text}");
    let elsewhere = ["local", "log_format"]; // in the config file alone; this crate reads JSON
    for name in names {
        let known = BridgeBuilder::SETTINGS.contains(&name) || elsewhere.contains(&name);
        assert!(known, "the worker has the setting {name}: add it to src/settings.rs");
    }
}

/// A program that prints the effective config of a worker with its own arguments, and what it prints: the sources of settings too.
async fn effective_config(configure: impl FnOnce(BridgeBuilder) -> BridgeBuilder) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (script, printed) = (folder.join("print.sh"), folder.join("printed"));
    // Not by exec: the client kills a program that has closed its stdout, and this one would still be about to print.
    let run = format!("'{}' \"$@\" --print-config >'{}'\nexit 1\n", common::worker_command().display(), printed.display());
    std::fs::write(&script, run).unwrap();
    let error = soon(configure(worker().command("sh").arg(&script)).spawn()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerStart, "{error}");
    let text = std::fs::read_to_string(printed).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    assert!(text.contains("omni_bridge:"), "{error}");
    text
}

/// Those that exclude each other are tested apart: `replay` in tests/cassette.rs, `engines` by its `auto`.
#[tokio::test]
async fn the_worker_takes_each_setting_as_its_method_writes_it() {
    let second = Duration::from_secs(1);
    let text = effective_config(|worker| {
        let worker = worker.max_message_bytes(1 << 20).max_in_flight(7).grace(second).engines_auto().engine_hang(second);
        let worker = worker.engine_max_mib(500).engine_max_requests(1000).deadline_total(second).deadline_first_token(second);
        let worker = worker.deadline_idle(second).allow_provider_params(["top_k"]).local_services(["llamafile"]);
        let worker = worker.image_policy(json!({"schemes": ["data"], "allowed_hosts": []})).engine("litellm").log_level("error");
        let worker = worker.budgets([BudgetLimit::usd("*", 10.0).window("1d")]).record("a.cassette").match_ignore(["ids"]);
        let worker = worker.record_missing().replay_in_real_time().faults("[]").idempotency_journal("a.db");
        worker.trace("a.trace").trace_content("full")
    })
    .await;
    let names = BridgeBuilder::SETTINGS.iter().filter(|name| **name != "replay");
    let unused: Vec<_> = names.filter(|name| !text.contains(&format!("# --{}\n", name.replace('_', "-")))).collect();
    assert!(unused.is_empty(), "{unused:?} did not arrive as a flag:\n{text}");
    for line in
        ["max_in_flight: 7 ", "grace_seconds: 1.0 ", "engine_max_mib: 500 ", "deadline_idle_ms: 1000 ", "trace_content: full "]
    {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn settings_reach_the_worker() {
    let bridge = soon(
        worker()
            .max_in_flight(7)
            .max_message_bytes(1 << 20)
            .grace(Duration::from_secs(1))
            .deadline_total(Duration::from_secs(100))
            .deadline_first_token(Duration::from_secs(50))
            .deadline_idle(Duration::from_secs(50))
            .allow_provider_params(["top_k"])
            .image_policy(json!({"schemes": ["data"], "allowed_hosts": []}))
            .local_services(["llamafile"])
            .budgets([BudgetLimit::usd("*", 10.0).window("1d"), BudgetLimit::tokens("*/*", 5)])
            .engine("litellm")
            .log_level("error")
            .trace_content("none")
            .spawn(),
    )
    .await
    .unwrap();
    let limits = bridge.workers()[0].initialize_result.limits.clone();
    assert_eq!((limits.max_in_flight, limits.max_message_bytes), (7, 1 << 20));
    let budgets = soon(bridge.budgets("agent/task")).await.unwrap().budgets;
    assert_eq!((budgets[0].max_usd, budgets[1].max_tokens), (Some(10.0), Some(5)));
    let request = ChatRequest::new("offline/echo").user("one two three four five six").budget("agent/task");
    let error = soon(bridge.chat(&request)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::BudgetExceeded, "{error}");
    let error = soon(worker().setting("max_in_flight", "none").spawn()).await.unwrap_err();
    assert!(error.to_string().contains("max"), "{error}");
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn a_task_is_refused_at_its_limit_and_continues_when_it_is_raised() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let task = Task::new("task-12").max_requests(1);
    let request = ChatRequest::new("offline/echo").user("hi").task(task.clone());
    soon(bridge.chat(&request)).await.unwrap();
    let error = soon(bridge.chat(&request)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::BudgetExceeded, "{error}");
    assert_eq!(error.task().map(|task| (task.spent_requests, task.estimate_usd)), Some((1, Some(0.0))));
    assert_eq!(soon(bridge.raise_task(&task.max_requests(2))).await.unwrap().max_requests, Some(2));
    soon(bridge.chat(&request)).await.unwrap();
    assert_eq!(soon(bridge.task("task-12")).await.unwrap().spent_requests, 2);
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn a_history_is_made_to_fit() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let fit = Fit::new(FitStrategy::OldestTurns).max_input_tokens(2);
    let request = ChatRequest::new("offline/echo").user("one two three").message(Message::assistant("four")).user("five").fit(fit);
    let fitted = soon(bridge.fit(&request)).await.unwrap();
    assert_eq!((fitted.messages.len(), fitted.dropped.len(), fitted.input_tokens, fitted.exact), (1, 2, 1, true));
    let response = soon(bridge.chat(&request)).await.unwrap();
    let receipt = response.receipt.unwrap().fit.unwrap();
    assert_eq!(receipt.dropped, fitted.dropped);
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_result_and_its_key_is_its_own() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let request = ChatRequest::new("offline/echo").user("hi").idempotency_key("step-17");
    let first = soon(bridge.chat(&request)).await.unwrap();
    assert_eq!(soon(bridge.chat(&request)).await.unwrap(), first); // the same timing, too
    let error = soon(bridge.chat(&request.user("another"))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidRequest, "{error}");
    soon(bridge.shutdown()).await;
}

// --- what the worker takes over -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_worker_checks_repairs_calls_again_and_reports_its_cache() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let place = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "place", "schema": place}});
    let fenced = ChatRequest::new("offline/echo").user("```json\n{\"a\": \"1\",}\n```").response_format(format.clone());

    let repaired = soon(bridge.chat(fenced.clone().repair_json())).await.unwrap();
    assert_eq!(repaired.text(), r#"{"a": 1}"#);
    assert_eq!(repaired.repaired.len(), 3, "{:?}", repaired.repaired);
    assert_eq!((repaired.problems[0].kind.clone(), repaired.problems[0].path.as_str()), (ProblemKind::Schema, "b"));

    let ensured = soon(bridge.chat(fenced.ensure(2))).await.unwrap();
    assert!(ensured.text().contains("does not fit the required format"), "{}", ensured.text()); // the echo of the second call
    assert!(!ensured.problems.is_empty());

    let letters =
        json!({"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z]+$"}}, "required": ["city"]});
    let checked = ChatRequest::new("offline/tools").user("weather").tool(Tool::new("weather").parameters(letters));
    let checked = soon(bridge.chat(checked)).await.unwrap();
    assert_eq!(checked.tool_calls[0].problems[0].path, "city");

    let cached = soon(bridge.chat(ChatRequest::new("offline/echo").user("hello").cache_auto())).await.unwrap();
    assert_eq!(cached.cache.unwrap().read_tokens, None);
    assert_eq!(cached.receipt.unwrap().cache.unwrap().missed.as_deref(), Some("too short"));
    soon(bridge.shutdown()).await;
}
