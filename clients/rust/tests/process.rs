//! The child process: how it starts, fails, crashes, is restarted and ended. Its part is played by small Python programs.
#![cfg(unix)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{fake, soon, until};
use omni_bridge_client::{Bridge, ChatRequest, ErrorKind, Recycling};

fn say(text: &str) -> ChatRequest {
    ChatRequest::new("m").user(text)
}

fn is_alive(process_id: u32) -> bool {
    // A process that nobody has waited for yet is dead all the same.
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap_or_default();
    if cfg!(target_os = "linux") {
        return stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'));
    }
    let listed = std::process::Command::new("ps").args(["-o", "stat=", "-p", &process_id.to_string()]).output().unwrap();
    listed.stdout.first().is_some_and(|state| *state != b'Z')
}

fn process_id(bridge: &Bridge) -> u32 {
    bridge.workers()[0].process_id.unwrap()
}

const ECHO: &str = "for message in initialized(): respond(message, said(text(message)))";

#[tokio::test]
async fn a_missing_binary_is_named_with_where_it_was_looked_for() {
    let error = Bridge::builder().command("no-such-omni-bridge").spawn().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerNotFound);
    assert!(error.message().contains("no-such-omni-bridge") && error.message().contains("PATH"), "{error}");
    let error = Bridge::builder().command("/no/such/omni-bridge").spawn().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerNotFound);
    assert!(error.message().contains("/no/such/omni-bridge"), "{error}");
}

#[tokio::test]
async fn a_worker_that_dies_at_the_start_shows_its_stderr() {
    let error = soon(fake("sys.stderr.write('line one\\nbad flag: --frobnicate'); sys.exit(2)").spawn()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerStart);
    assert_eq!(error.stderr(), ["line one", "bad flag: --frobnicate"]);
    assert!(error.message().contains("exit status: 2") && error.to_string().contains("--frobnicate"), "{error}");
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_refused_with_what_it_says() {
    let error = soon(fake("while True: print('y')").spawn()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerStart);
    assert!(error.message().contains("\"y\""), "{error}");
}

#[tokio::test]
async fn a_worker_that_does_not_respond_to_initialize_is_given_up_and_killed() {
    let silent = fake("sys.stderr.write(f'{os.getpid()}\\n'); sys.stderr.flush()\nfor line in sys.stdin: pass\nsignal.pause()");
    let error = soon(silent.start_timeout(Duration::from_millis(1500)).spawn()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerStart);
    if let Some(line) = error.stderr().first() {
        let id = line.parse().unwrap(); // on a machine too slow for it to have come that far there is nothing to see
        until("it is killed", || !is_alive(id)).await;
    }
}

#[tokio::test]
async fn a_program_that_writes_garbage_and_then_nothing_is_refused_within_seconds() {
    let start = std::time::Instant::now();
    let error = soon(fake("print('Welcome to the shell!', flush=True)\nfor line in sys.stdin: pass").spawn()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerStart);
    assert!(error.message().contains("Welcome to the shell!") && error.message().contains("then nothing"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_working_directory_that_is_none_is_named() {
    for directory in ["/no/such/directory", "/bin/sh"] {
        let error = soon(fake(ECHO).current_dir(directory).spawn()).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::WorkerStart);
        assert!(error.message().contains(directory) && error.message().contains("current_dir"), "{error}");
    }
}

#[tokio::test]
async fn a_hung_process_is_killed_and_replaced() {
    let program = r#"
for message in initialized():
    if text(message) == "hang":
        signal.pause()
    respond(message, said(str(os.getpid())))
"#;
    let builder = fake(program).hung_after(Duration::from_millis(700)).backoff(Duration::from_millis(1), Duration::from_millis(1));
    let bridge = soon(builder.spawn()).await.unwrap();
    let before = process_id(&bridge);
    let error = soon(bridge.chat(say("hang"))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerLost);
    assert!(error.message().contains("hangs"), "{error}");
    until("it is killed", || !is_alive(before)).await;
    assert_ne!(soon(bridge.chat(say("who"))).await.unwrap().text(), before.to_string());
}

#[test]
fn debug_shows_no_value_of_the_environment() {
    let builder = Bridge::builder().env("OPENAI_API_KEY", "sk-secret").envs([("OTHER_KEY", "sk-other")]);
    let config: omni_bridge_client::LlmConfig =
        serde_json::from_value(serde_json::json!({"bridge": {"env": {"THIRD_KEY": "sk-third"}}})).unwrap();
    let shown = format!("{builder:?} {config:?} {:?}", config.bridge.builder());
    assert!(shown.contains("OPENAI_API_KEY") && shown.contains("THIRD_KEY"), "{shown}");
    assert!(!shown.contains("sk-"), "{shown}");
}

/// Runs this test program again with another environment, in which only the one test below looks at it.
#[test]
fn the_command_comes_from_the_environment_unless_the_builder_has_one() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-such-worker");
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_this_environment_the_command_is_a_missing_file", "--ignored"])
        .env("OMNI_BRIDGE_COMMAND", &file)
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
    assert!(String::from_utf8_lossy(&again.stdout).contains("1 passed"));
}

#[tokio::test]
#[ignore = "run by the test above, with OMNI_BRIDGE_COMMAND set"]
async fn in_this_environment_the_command_is_a_missing_file() {
    let error = Bridge::spawn().await.unwrap_err();
    assert!(error.message().contains("no-such-worker"), "{error}");
    let error = Bridge::builder().command("/other/command").spawn().await.unwrap_err();
    assert!(error.message().contains("/other/command"), "{error}");
}

#[tokio::test]
async fn a_worker_that_is_replaced_serves_until_the_next_one_is_ready() {
    let program = r#"
first = sys.argv[1]
if not os.path.exists(first):
    open(first, "w").close()
    balloon = bytearray(80_000_000)
    for message in initialized(): respond(message, said("old"))
else:
    for message in requests():
        if message["method"] == "initialize":
            initialize_result(message, ready=False)
            open(first + ".cold", "w").close()
            def warm_up():
                while not os.path.exists(first + ".go"): threading.Event().wait(0.005)
                send({"method": "notifications/ready", "params": {}})
            threading.Thread(target=warm_up, daemon=True).start()
        elif "id" in message:
            respond(message, said("new") if message["method"] == "chat" else {})
"#;
    let marker = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("replaced-{}", std::process::id()));
    let recycling = Recycling::above(60_000_000).min_age(Duration::ZERO).check_every(Duration::from_millis(5));
    let bridge = soon(fake(program).arg(&marker).recycling(recycling).spawn()).await.unwrap();
    until("the next one is initialized", || marker.with_extension("cold").exists()).await;
    for _ in 0..20 {
        assert_eq!(soon(bridge.chat(say("who"))).await.unwrap().text(), "old");
    }
    std::fs::write(marker.with_extension("go"), "").unwrap();
    let took_over = async { while bridge.chat(say("who")).await.unwrap().text() != "new" {} };
    soon(took_over).await;
    for file in [marker.clone(), marker.with_extension("cold"), marker.with_extension("go")] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn a_worker_of_another_version_is_refused() {
    let error =
        soon(fake("for message in requests(): initialize_result(message, version='omni-bridge/9')").spawn()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::VersionMismatch);
    assert!(error.message().contains("omni-bridge/9") && error.message().contains("fake 7"), "{error}");
}

#[tokio::test]
async fn garbage_on_stdout_costs_no_answer() {
    let program = r#"
for message in initialized():
    sys.stdout.write("Provider List: https://example.com\n\n\x00\x01 {]\n")
    respond(message, said(text(message)))
"#;
    let bridge = soon(fake(program).spawn()).await.unwrap();
    for text in ["one", "two"] {
        assert_eq!(soon(bridge.chat(say(text))).await.unwrap().text(), text);
    }
}

#[tokio::test]
async fn a_flood_on_stderr_stops_nothing() {
    let program = "for message in initialized():\n    sys.stderr.write('x' * 3_000_000 + '\\n' + 'y\\n' * 100_000); sys.stderr.flush()\n    respond(message, said('ok'))";
    let bridge = soon(fake(program).spawn()).await.unwrap();
    assert_eq!(soon(bridge.chat(say("hi"))).await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_crash_fails_what_was_sent_and_the_next_call_finds_a_new_worker() {
    let program = r#"
for message in initialized():
    if text(message) == "crash":
        sys.stderr.write("Segmentation fault (core dumped)\n"); sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    respond(message, said(str(os.getpid())))
"#;
    let bridge = soon(fake(program).backoff(Duration::from_millis(1), Duration::from_millis(1)).spawn()).await.unwrap();
    let before = soon(bridge.chat(say("who"))).await.unwrap();
    let error = soon(bridge.chat(say("crash"))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerLost);
    assert!(error.was_sent() && error.is_retryable(), "{error:?}");
    assert!(error.message().contains("SIGKILL"), "{error}");
    assert_eq!(error.stderr(), ["Segmentation fault (core dumped)"]);
    let after = soon(bridge.chat(say("who"))).await.unwrap();
    assert_ne!(before.text(), after.text());
}

#[tokio::test]
async fn what_was_never_written_goes_to_the_next_worker() {
    // The first worker takes one request, reads no more and dies on a signal from the test; the pipe is full long before the last request.
    let program = r#"
marker = sys.argv[1]
if os.path.exists(marker):
    for message in initialized(): respond(message, said(str(len(text(message)))))
messages = initialized()
next(messages)
open(marker, "w").close()
signal.pause()
"#;
    let marker = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("marker-{}", std::process::id()));
    let _ = std::fs::remove_file(&marker);
    let fast = (Duration::from_millis(1), Duration::from_millis(1));
    let bridge = soon(fake(program).arg(marker.clone()).backoff(fast.0, fast.1).spawn()).await.unwrap();
    let stuck = bridge.chat_stream(say("stuck")).await.unwrap();
    until("the worker reads no more", || marker.exists()).await;
    let filling = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.chat(say(&"x".repeat(4_000_000))).await }
    });
    let waiting = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.chat(say("waits behind it")).await }
    });
    until("all are queued", || bridge.workers()[0].in_flight == 3).await;
    let worker = i32::try_from(process_id(&bridge)).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(worker).unwrap(), rustix::process::Signal::KILL).unwrap();
    let error = soon(stuck.finish()).await.unwrap_err();
    assert!(error.kind() == &ErrorKind::WorkerLost && error.was_sent(), "{error:?}");
    let error = soon(filling).await.unwrap().unwrap_err();
    assert!(error.was_sent(), "half of it was: {error:?}");
    assert_eq!(soon(waiting).await.unwrap().unwrap().text(), "15");
}

#[tokio::test]
async fn while_no_worker_starts_calls_fail_at_once_and_say_when_to_come_back() {
    let program = r#"
marker = sys.argv[1]
if os.path.exists(marker):
    sys.stderr.write("the disk is on fire\n"); sys.exit(1)
open(marker, "w").close()
for message in initialized(): os._exit(1)
"#;
    let marker = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fire-{}", std::process::id()));
    let _ = std::fs::remove_file(&marker);
    let hour = Duration::from_secs(3600);
    let bridge = soon(fake(program).arg(marker).backoff(Duration::from_millis(1), hour).spawn()).await.unwrap();
    assert!(soon(bridge.chat(say("crash"))).await.unwrap_err().was_sent());
    let error = soon(bridge.chat(say("hi"))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WorkerStart);
    assert_eq!(error.stderr(), ["the disk is on fire"]);
    assert!(!error.was_sent() && error.is_retryable() && error.retry_after() > Some(Duration::ZERO), "{error:?}");
}

#[tokio::test]
async fn a_pool_spreads_calls_over_its_workers_and_survives_the_loss_of_one() {
    let program = r#"
held = []
for message in initialized():
    if text(message) == "hold": held.append(message)
    else: respond(message, said(str(os.getpid())))
"#;
    let bridge =
        soon(fake(program).workers(3).backoff(Duration::from_secs(3600), Duration::from_secs(3600)).spawn()).await.unwrap();
    assert_eq!(bridge.workers().len(), 3);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(bridge.chat_stream(say("hold")).await.unwrap());
    }
    assert_eq!(bridge.workers().iter().map(|worker| worker.in_flight).collect::<Vec<_>>(), [2, 2, 2]);
    let worker = i32::try_from(process_id(&bridge)).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(worker).unwrap(), rustix::process::Signal::KILL).unwrap();
    until("two are left", || bridge.workers().len() == 2).await;
    assert_eq!(bridge.workers().iter().map(|worker| worker.in_flight).sum::<usize>(), 4);
    for _ in 0..4 {
        let response = soon(bridge.chat(say("who"))).await.unwrap();
        assert_ne!(response.text(), worker.to_string());
    }
    let mut failed = 0;
    for stream in &mut held {
        let waiting = tokio::time::timeout(Duration::ZERO, stream.next()).await;
        failed += usize::from(matches!(waiting, Ok(Some(Err(_)))));
    }
    assert_eq!(failed, 2, "those of the lost one, and no others");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_worker_that_has_outgrown_its_limit_is_replaced_and_ends_what_it_has_begun() {
    let program = r#"
grown = []
def watch(message):
    open(text(message)).read()
    respond(message, said(str(os.getpid())))
for message in initialized():
    if text(message).startswith("/"): threading.Thread(target=watch, args=[message]).start()
    elif text(message) == "grow": grown.append(b"x" * (200 << 20)); respond(message, said("grown"))
    else: respond(message, said(str(os.getpid())))
"#;
    let gate = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gate-{}", std::process::id()));
    let _ = std::fs::remove_file(&gate);
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let recycling = Recycling::above(150 << 20).min_age(Duration::ZERO).check_every(Duration::from_millis(10));
    let bridge = soon(fake(program).recycling(recycling).spawn()).await.unwrap();
    let first = process_id(&bridge);
    let begun = bridge.chat_stream(say(gate.to_str().unwrap())).await.unwrap();
    assert_eq!(soon(bridge.chat(say("grow"))).await.unwrap().text(), "grown");
    until("another takes its place", || bridge.workers().first().is_some_and(|worker| worker.process_id != Some(first))).await;
    assert!(is_alive(first), "it has a chat to end");
    assert_ne!(soon(bridge.chat(say("who"))).await.unwrap().text(), first.to_string());
    std::fs::write(&gate, "").unwrap();
    assert_eq!(soon(begun.finish()).await.unwrap().text(), first.to_string());
    until("it ends", || !is_alive(first)).await;
}

#[tokio::test]
async fn shutdown_closes_stdin_and_waits_for_the_last_answer() {
    let program = r#"
messages = list(initialized())  # to the end of stdin
for message in messages: respond(message, said(text(message)))
"#;
    let bridge = soon(fake(program).shutdown_grace(common::WAIT).spawn()).await.unwrap();
    let stream = bridge.chat_stream(say("last")).await.unwrap();
    let id = process_id(&bridge);
    soon(bridge.shutdown()).await;
    assert!(!is_alive(id));
    assert_eq!(soon(stream.finish()).await.unwrap().text(), "last");
    assert_eq!(soon(bridge.chat(say("hi"))).await.unwrap_err().kind(), &ErrorKind::Closed);
}

#[tokio::test]
async fn shutdown_terminates_a_worker_that_does_not_end_by_itself() {
    let program =
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\nfor message in initialized(): pass\nwhile True: signal.pause()";
    let bridge = soon(fake(program).shutdown_grace(Duration::from_millis(1)).spawn()).await.unwrap();
    let id = process_id(&bridge);
    soon(bridge.shutdown()).await;
    assert!(!is_alive(id));
}

#[tokio::test]
async fn shutdown_kills_a_worker_that_ignores_everything() {
    let program = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nfor message in initialized(): pass\nwhile True: signal.pause()";
    let bridge = soon(fake(program).shutdown_grace(Duration::from_millis(1)).spawn()).await.unwrap();
    let id = process_id(&bridge);
    soon(bridge.shutdown()).await;
    assert!(!is_alive(id));
}

/// A worker that has a child of its own, and tells its number.
const PARENT: &str = r#"
import subprocess
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"])
for message in initialized(): respond(message, said(str(child.pid)))
"#;

#[tokio::test]
async fn when_the_last_handle_goes_the_worker_and_its_children_are_killed() {
    let bridge = soon(fake(PARENT).spawn()).await.unwrap();
    let worker = process_id(&bridge);
    let child: u32 = soon(bridge.chat(say("child?"))).await.unwrap().text().parse().unwrap();
    let other_handle = bridge.clone();
    drop(bridge);
    soon(other_handle.chat(say("still there?"))).await.unwrap();
    drop(other_handle);
    until("both are gone", || !is_alive(worker) && !is_alive(child)).await;
}

#[test]
fn when_the_runtime_goes_the_bridge_goes_on_and_its_last_handle_kills_the_worker_and_its_children() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (bridge, worker) = first.block_on(async {
        let bridge = soon(fake(PARENT).spawn()).await.unwrap();
        let worker = process_id(&bridge);
        (bridge, worker)
    });
    drop(first);
    let second = runtime();
    let child: u32 = second.block_on(async { soon(bridge.chat(say("child?"))).await.unwrap().text().parse().unwrap() });
    drop(bridge);
    second.block_on(until("both are gone", || !is_alive(worker) && !is_alive(child)));
}

#[test]
fn a_bridge_in_a_task_of_a_runtime_that_ends_is_dropped_with_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let worker = runtime.block_on(async {
        let bridge = soon(fake(PARENT).spawn()).await.unwrap();
        let worker = process_id(&bridge);
        tokio::spawn(async move {
            let _bridge = bridge;
            std::future::pending::<()>().await;
        });
        worker
    });
    drop(runtime);
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    waiting.block_on(until("it is gone", || !is_alive(worker)));
}

#[tokio::test]
async fn a_child_that_a_crashed_worker_leaves_behind_is_killed() {
    let bridge = soon(fake(PARENT).spawn()).await.unwrap();
    let child: u32 = soon(bridge.chat(say("child?"))).await.unwrap().text().parse().unwrap();
    let worker = i32::try_from(process_id(&bridge)).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(worker).unwrap(), rustix::process::Signal::KILL).unwrap();
    until("it is gone", || !is_alive(child)).await;
}

#[tokio::test]
async fn the_worker_is_not_in_the_agents_process_group() {
    let bridge = soon(fake("for message in initialized(): respond(message, said(str(os.getpgrp())))").spawn()).await.unwrap();
    let group = soon(bridge.chat(say("group?"))).await.unwrap();
    assert_eq!(group.text(), process_id(&bridge).to_string());
}

#[tokio::test]
async fn environment_and_arguments_reach_the_worker_untouched_by_a_shell() {
    let program = "for message in initialized(): respond(message, said(json.dumps([sys.argv[1:], dict(os.environ)])))";
    let built = fake(program).arg("$HOME; `x` 'y'").env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("KEY", "$v");
    let bridge = soon(built.config("my gateway.yaml").log_level("info").spawn()).await.unwrap();
    let said = soon(bridge.chat(say("?"))).await.unwrap();
    let (arguments, environment): (Vec<String>, serde_json::Value) = serde_json::from_str(said.text()).unwrap();
    assert_eq!(arguments, ["$HOME; `x` 'y'", "--stdio", "--config", "my gateway.yaml", "--log-level", "info"]);
    assert_eq!(environment["KEY"], "$v");
    assert_eq!(environment.get("HOME"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bridge_serves_many_tasks() {
    let bridge = Arc::new(soon(fake(ECHO).spawn()).await.unwrap());
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let bridge = Arc::clone(&bridge);
            tokio::spawn(async move { assert_eq!(bridge.chat(say(&number.to_string())).await.unwrap().text(), number.to_string()) })
        })
        .collect();
    for task in tasks {
        soon(task).await.unwrap();
    }
}
