//! The examples do what they say.

mod common;

#[allow(dead_code, unreachable_pub, reason = "its main is not called here")]
#[path = "../examples/agent.rs"]
mod agent;

use common::{soon, worker};

#[tokio::test]
async fn the_agent_runs_its_tools_and_answers() {
    let bridge = soon(worker().spawn()).await.unwrap();
    let answered = soon(agent::answer(&bridge, "offline/tools", "What is 1 * 1?")).await.unwrap();
    assert_eq!(answered, "1");
    soon(bridge.shutdown()).await;
}

#[test]
fn the_agent_is_a_page_long() {
    let lines = include_str!("../examples/agent.rs").lines().count();
    assert!(lines < 120, "{lines} lines");
}
