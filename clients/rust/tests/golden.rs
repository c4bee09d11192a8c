//! The recorded conversations of the project's `tests/golden/`, with the real process: what this side relies on, byte for byte, and
//! that each line of them has its place in this crate's types. The Python tests replay the same files.
//!
//! The format: `# comment`, `# flags: ...`, `> ` a line that is sent, `< ` the JSON that must be read next. "«any»", "«string»" and
//! "«number»" stand for what differs from run to run.

mod common;

use std::collections::HashMap;
use std::process::Stdio;

use common::{fits, repository, same, soon, worker_command};
use omni_bridge_client::types::{ChatDelta, ChatResponse, InitializeResult};
use omni_bridge_client::{ChatRequest, ErrorKind};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

enum Step {
    Send(String),
    Expect(Value),
}

fn read(text: &str) -> (Vec<String>, Vec<Step>) {
    let (mut flags, mut steps) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(sent) = line.strip_prefix("> ") {
            steps.push(Step::Send(sent.to_owned()));
        } else if let Some(expected) = line.strip_prefix("< ") {
            steps.push(Step::Expect(serde_json::from_str(expected).unwrap()));
        } else if let Some(given) = line.strip_prefix("# flags:") {
            flags.extend(given.split_whitespace().map(str::to_owned));
        } else {
            assert!(line.starts_with('#'), "neither a comment nor sent (>) nor received (<): {line}");
        }
    }
    (flags, steps)
}

/// Whether what came is as recorded.
fn matches(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::String(wild), _) if wild == "«any»" => true,
        (Value::String(wild), got) if wild == "«string»" => got.is_string(),
        (Value::String(wild), got) if wild == "«number»" => got.is_number(),
        (Value::Array(expected), Value::Array(got)) => {
            expected.len() == got.len() && expected.iter().zip(got).all(|(expected, got)| matches(expected, got))
        }
        (Value::Object(expected), Value::Object(got)) => {
            expected.len() == got.len()
                && expected.iter().all(|(name, expected)| got.get(name).is_some_and(|got| matches(expected, got)))
        }
        _ => same(expected, got),
    }
}

fn is_ready(message: &Value) -> bool {
    message["method"] == "notifications/ready"
}

async fn replay(name: &str, text: &str) {
    let (flags, steps) = read(text);
    let mut command = tokio::process::Command::new(worker_command());
    command.arg("--stdio").args(flags).current_dir(repository()).kill_on_drop(true);
    let mut worker = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = worker.stdin.take().unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let mut requests = HashMap::new();
    for step in steps {
        match step {
            Step::Send(line) => {
                for message in messages(serde_json::from_str(&line).unwrap_or_default()) {
                    requests.insert(message["id"].to_string(), message);
                }
                soon(stdin.write_all(format!("{line}\n").as_bytes())).await.unwrap();
            }
            Step::Expect(expected) => loop {
                let line =
                    soon(lines.next_line()).await.unwrap().unwrap_or_else(|| panic!("{name}: the end came instead of {expected}"));
                let got: Value = serde_json::from_str(&line).unwrap();
                if is_ready(&got) && !is_ready(&expected) {
                    continue;
                }
                assert!(matches(&expected, &got), "{name}:\n expected {expected}\n received {got}");
                messages(got).iter().for_each(|message| has_its_place(message, &requests));
                break;
            },
        }
    }
    drop(stdin);
    while let Some(line) = soon(lines.next_line()).await.unwrap() {
        assert!(is_ready(&serde_json::from_str(&line).unwrap()), "{name}: more came than is recorded: {line}");
    }
    assert_eq!(soon(worker.wait()).await.unwrap().code(), Some(0), "{name}");
}

/// A line's message, or the members of a batch.
fn messages(line: Value) -> Vec<Value> {
    match line {
        Value::Array(members) => members,
        message => vec![message],
    }
}

fn has_its_place(message: &Value, requests: &HashMap<String, Value>) {
    if message["method"] == "notifications/chat/delta" {
        fits::<ChatDelta>(&message["params"]["delta"]);
    }
    if let Some(kind) = message["error"]["data"]["kind"].as_str() {
        assert!(!matches!(ErrorKind::from(kind), ErrorKind::Other(_)), "src/error.rs lacks {kind}");
    }
    let request = requests.get(&message["id"].to_string());
    match (message.get("result"), request.and_then(|request| request["method"].as_str())) {
        (Some(result), Some("chat")) => {
            fits::<ChatResponse>(result);
            // An empty list of tools is left out, which is the same request.
            let mut params = request.unwrap()["params"].clone();
            params.as_object_mut().unwrap().retain(|name, value| !(name == "tools" && value.as_array().is_some_and(Vec::is_empty)));
            fits::<ChatRequest>(&params);
        }
        (Some(result), Some("initialize")) => drop(fits::<InitializeResult>(result)),
        _ => {}
    }
}

#[tokio::test]
async fn the_worker_speaks_as_recorded_and_every_line_has_its_place() {
    let folder = repository().join("tests/golden");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut transcripts: Vec<_> = files.filter(|file| file.extension().is_some_and(|kind| kind == "transcript")).collect();
    transcripts.sort();
    assert!(!transcripts.is_empty(), "there are none in {}", folder.display());
    for file in transcripts {
        replay(&file.file_name().unwrap().to_string_lossy(), &std::fs::read_to_string(&file).unwrap()).await;
    }
}

#[test]
fn a_difference_is_seen() {
    let is = |expected: &str, got: &str| matches(&serde_json::from_str(expected).unwrap(), &serde_json::from_str(got).unwrap());
    assert!(is(r#"{"a":["«any»","«string»","«number»"]}"#, r#"{"a":[null,"x",0.5]}"#));
    assert!(is("1", "1.0"));
    for (expected, got) in [
        (r#"{"a":"«number»"}"#, r#"{"a":"1"}"#),
        (r#"{"a":1}"#, r#"{"a":true}"#),
        (r#"{"a":1,"b":"«any»"}"#, r#"{"a":1}"#),
        (r#"{"a":1}"#, r#"{"a":1,"b":2}"#),
        ("[1]", "[1,2]"),
    ] {
        assert!(!is(expected, got), "{expected} {got}");
    }
}
