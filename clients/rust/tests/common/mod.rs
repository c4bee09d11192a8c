//! What the tests share: the real worker, stand-ins for it, and a real HTTP upstream.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test file uses its part, and a test may panic"
)]

pub mod upstream;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use omni_bridge_client::{Bridge, BridgeBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf};

/// Generous: a wait that works ends when its condition does, whatever the machine's load.
pub const WAIT: Duration = Duration::from_secs(60);

/// Fails the test if it does not come to an end.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, work).await.expect("it never happened")
}

/// For what has no event to wait on, such as a process that ends elsewhere.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let polling = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            tick.tick().await;
        }
    };
    assert!(tokio::time::timeout(WAIT, polling).await.is_ok(), "it never happened: {what}");
}

pub fn repository() -> PathBuf {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.into_iter().find(|folder| folder.join("protocol.md").is_file()).expect("a checkout").to_owned()
}

pub fn worker_command() -> PathBuf {
    std::env::var_os("OMNI_BRIDGE_COMMAND").map_or_else(|| repository().join("bin/omni-bridge"), PathBuf::from)
}

/// The real worker, without what a developer's shell may hold of keys, proxies and settings.
pub fn worker() -> BridgeBuilder {
    let kept = ["PATH", "HOME", "TMPDIR", "SystemRoot"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    Bridge::builder().command(worker_command()).env_clear().envs(kept)
}

/// A Python program in the place of the worker. It sees `send`, `respond`, `fail`, `initialize_result`, `requests` and `initialized`.
pub fn fake(program: &str) -> BridgeBuilder {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("fake-{}-{}.py", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, format!("{PRELUDE}\n{program}\n")).unwrap();
    Bridge::builder().command("python3").args(["-I", "-S", "-u"]).arg(file)
}

const PRELUDE: &str = r#"
import json, os, signal, sys, threading

def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()

def respond(message, result):
    send({"id": message["id"], "result": result})

def fail(message, code, kind, **data):
    send({"id": message["id"], "error": {"code": code, "message": kind, "data": {"kind": kind, **data}}})

def requests():
    for line in sys.stdin:
        yield json.loads(line)

def initialize_result(message, version="omni-bridge/1", ready=True, **limits):
    limits = {"maxMessageBytes": 1 << 26, "maxInFlight": 256} | limits
    respond(message, {"protocolVersion": version, "serverInfo": {"name": "fake", "version": "7"}, "capabilities": {},
                     "limits": limits, "engine": {"name": "none", "version": None, "ready": ready}})

def initialized(**limits):
    for message in requests():
        if message["method"] == "initialize":
            initialize_result(message, **limits)
        elif message["method"] == "ping":
            respond(message, {})
        elif "id" in message:
            yield message

def text(message):
    return message["params"]["messages"][-1]["content"]

def said(content):
    return {"content": content, "tool_calls": [], "reasoning": None, "finish_reason": "stop", "usage": None, "cost_usd": None,
            "message": {"role": "assistant", "content": content}, "model": "m", "requested_model": "m", "provider": None,
            "id": None, "logprobs": None, "timing": {"queued_ms": 0.0, "first_token_ms": None, "total_ms": 0.0}}
"#;

/// The worker's side of an in-memory connection, played by the test.
pub struct Peer {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    writer: WriteHalf<DuplexStream>,
    unread: VecDeque<Value>,
}

impl Peer {
    /// An initialized pair.
    pub async fn pair() -> (Bridge, Peer) {
        Peer::pair_with(json!({"maxMessageBytes": 1 << 20, "maxInFlight": 256})).await
    }

    pub async fn pair_with(limits: Value) -> (Bridge, Peer) {
        Peer::pair_of(Bridge::builder(), limits).await
    }

    /// An initialized pair with settings of the client's.
    pub async fn pair_of(builder: BridgeBuilder, limits: Value) -> (Bridge, Peer) {
        let (client, mut peer) = Peer::ends();
        let (reader, writer) = tokio::io::split(client);
        let initializing = async {
            let message = peer.next().await;
            assert_eq!(message["method"], "initialize");
            assert_eq!(message["params"]["processId"], std::process::id());
            peer.respond(&message, initialize_result(limits)).await;
            assert_eq!(peer.next().await["method"], "notifications/initialized");
        };
        let (bridge, ()) = soon(async { tokio::join!(builder.connect(reader, writer), initializing) }).await;
        (bridge.unwrap(), peer)
    }

    pub fn ends() -> (DuplexStream, Peer) {
        let (client, worker) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(worker);
        (client, Peer { lines: BufReader::new(reader).lines(), writer, unread: VecDeque::new() })
    }

    /// The next message from the client.
    pub async fn next(&mut self) -> Value {
        match self.unread.pop_front() {
            Some(message) => message,
            None => self.read().await.expect("the client has closed its side"),
        }
    }

    async fn read(&mut self) -> Option<Value> {
        let line = soon(self.lines.next_line()).await.unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// Waits until the client has closed its side, and fails the test if it says anything more.
    pub async fn closed(&mut self) {
        assert_eq!(self.read().await, None);
    }

    pub async fn send(&mut self, message: Value) {
        self.raw(format!("{message}\n").as_bytes()).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        soon(self.writer.write_all(bytes)).await.unwrap();
    }

    pub async fn respond(&mut self, request: &Value, result: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    }

    pub async fn fail(&mut self, request: &Value, code: i64, data: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": "it failed", "data": data}}))
            .await;
    }

    pub async fn delta(&mut self, request: &Value, seq: u64, delta: Value) {
        let params = json!({"requestId": request["id"], "seq": seq, "delta": delta});
        self.send(json!({"jsonrpc": "2.0", "method": "notifications/chat/delta", "params": params})).await;
    }
}

pub fn initialize_result(limits: Value) -> Value {
    json!({"protocolVersion": "omni-bridge/1", "serverInfo": {"name": "peer", "version": "7"}, "capabilities": {},
           "limits": limits, "engine": {"name": "none", "version": null, "ready": false}})
}

/// A chat's result that says this.
pub fn said(content: &str) -> Value {
    json!({"content": content, "tool_calls": [], "reasoning": null, "refusal": null, "annotations": null, "finish_reason": "stop",
           "raw_finish_reason": null, "message": {"role": "assistant", "content": content}, "usage": null, "cost_usd": null,
           "cost_source": null, "price_map_date": null, "rate_limits": null, "model": "m", "requested_model": "m", "provider": null,
           "id": null, "logprobs": null, "timing": {"queued_ms": 0.0, "first_token_ms": null, "total_ms": 0.0}, "receipt": null})
}

/// Equal, where `1` and `1.0` are.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

/// Reads a value as `T`. Fails the test if anything in it has no place in the type, or comes out changed.
pub fn fits<T: serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug>(value: &Value) -> T {
    let name = std::any::type_name::<T>();
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{name}: {error}\n{value}"));
    let written = serde_json::to_value(&read).unwrap();
    assert!(same(&written, value), "{name} changes what it reads:\n{value}\n{written}");
    let debug = format!("{read:?}");
    let unnamed = debug.match_indices("extra: ").find(|(at, found)| !debug[at + found.len()..].starts_with("{}"));
    assert!(unnamed.is_none(), "{name} has no name for {}: add it to src/types.rs", &debug[unnamed.unwrap().0..]);
    read
}
