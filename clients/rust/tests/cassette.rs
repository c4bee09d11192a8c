//! The example agent records against a provider, and replays: on a worker without a key, and in the mock without Python.

mod common;
#[path = "../examples/cassette.rs"]
#[allow(unreachable_pub, reason = "the tests call the agent")]
mod example;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use common::upstream::Upstream;
use common::{soon, worker};
use omni_bridge_client::mock::{Cassette, Mock};
use omni_bridge_client::{Bridge, ChatRequest, Deadlines, ErrorKind};

fn new_file() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("run-{}-{}.cassette", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

async fn run(bridge: &Bridge, model: &str) -> String {
    let seen = soon(example::agent(bridge, model)).await.unwrap();
    bridge.shutdown().await;
    seen
}

#[tokio::test]
async fn the_example_agent_records_and_replays_byte_identically_on_a_worker_and_in_the_mock() {
    let upstream = Upstream::start().await;
    for model in ["openai/echo", "offline/tools"] {
        let file = new_file();
        let recorded = run(&soon(worker().envs(upstream.environment()).record(&file).spawn()).await.unwrap(), model).await;
        let requests = upstream.wait(|_| true).await.requests;
        let replayed = run(&soon(worker().replay(&file).spawn()).await.unwrap(), model).await;
        assert_eq!(replayed, recorded);
        assert_eq!(upstream.wait(|_| true).await.requests, requests, "no provider is called");
        let mocked = run(&soon(Mock::new().script(Cassette::open(&file).unwrap()).spawn()).await.unwrap(), model).await;
        assert_eq!(mocked, recorded);
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn a_request_that_was_not_recorded_is_a_kind_of_error_with_the_nearest_and_errors_replay_in_the_mock() {
    let file = new_file();
    let bridge = soon(worker().record(&file).faults(faults_file()).spawn()).await.unwrap();
    let cut = soon(bridge.chat(ChatRequest::new("offline/echo").user("limited"))).await.unwrap_err();
    assert_eq!(cut.kind(), &ErrorKind::RateLimited);
    bridge.shutdown().await;
    // Another process writes it, which outlives a worker that has waited for it long enough.
    common::until("the exchange is written", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("limited"))).await;

    let bridge = soon(worker().replay(&file).spawn()).await.unwrap();
    let miss = soon(bridge.chat(ChatRequest::new("offline/echo").user("other"))).await.unwrap_err();
    assert_eq!((miss.kind(), miss.is_retryable()), (&ErrorKind::CassetteMiss, false));
    assert_eq!(miss.nearest().unwrap().differs, ["params.messages.0.content"]);
    bridge.shutdown().await;

    let mock = soon(Mock::new().script(Cassette::open(&file).unwrap()).spawn()).await.unwrap();
    let patient = Deadlines::total(std::time::Duration::from_secs(5));
    let again = soon(mock.chat(ChatRequest::new("offline/echo").user("limited").deadlines(patient))).await.unwrap_err();
    assert_eq!((again.kind(), again.retry_after()), (cut.kind(), cut.retry_after()));
    assert_eq!(soon(mock.chat(ChatRequest::new("offline/echo").user("never"))).await.unwrap_err().kind(), &ErrorKind::CassetteMiss);
    std::fs::remove_file(file).unwrap();
}

fn faults_file() -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("limited.yaml");
    std::fs::write(&file, "faults: [{do: {status: 429, retry_after: 3}, sees: rate_limited}]").unwrap();
    file
}
