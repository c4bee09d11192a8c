//! The overhead of this crate, compared with a raw HTTP client of the same upstream.
//!
//! `cargo run --release --example overhead`; set `OMNI_BRIDGE_COMMAND` to measure a worker too. Three paths to the same response:
//! a bare TCP connection with keep-alive, this crate with a worker that does nothing (this program itself, over real pipes), and
//! this crate with omni-bridge, where LiteLLM's own cost is in it. CPU is the client's threads alone, from the kernel's clock.

#[path = "../tests/common/upstream.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "it is shared with the tests")]
mod upstream;

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use omni_bridge_client::{Bridge, ChatRequest};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn Error>>;

const CALLS: usize = 2000;
const SLOW_CALLS: usize = 300;
const DELTAS: usize = 2000;
const AT_ONCE: usize = 10_000;

async fn soon<T>(work: impl Future<Output = T>) -> T {
    work.await
}

fn main() -> Outcome<()> {
    if std::env::args().any(|argument| argument == "--stdio") {
        return do_nothing();
    }
    let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let upstream = serving.block_on(serving.spawn(upstream::Upstream::start()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{:<34}{:>14}{:>14}{:>14}{:>14}", "", "us a call", "CPU", "us a delta", "CPU");
    runtime.block_on(async {
        let mut connection = BufReader::new(TcpStream::connect(upstream.address).await?);
        connection.get_ref().set_nodelay(true)?;
        let mut calls = Measure::new(CALLS);
        for _ in 0..CALLS {
            calls.take(raw(&mut connection, "echo", false)).await?;
        }
        let calls = calls.end();
        let mut stream = Measure::new(DELTAS);
        stream.take(raw(&mut connection, &format!("count-{DELTAS}"), true)).await?;
        row("raw HTTP", &calls, &stream.end());

        let bridge = Bridge::builder().command(std::env::current_exe()?).spawn().await?;
        measure("this crate, worker does nothing", &bridge, "", CALLS).await?;
        measure("this crate, worker sleeps 450 us", &bridge, "slow-", SLOW_CALLS).await?;
        at_once("worker does nothing", &bridge, "echo").await?;
        bridge.shutdown().await;

        if let Some(command) = std::env::var_os("OMNI_BRIDGE_COMMAND") {
            let start = Instant::now();
            let bridge = Bridge::builder().command(command).envs(upstream.environment()).spawn().await?;
            let spawned = start.elapsed();
            bridge.ready().await?;
            println!("spawned after {spawned:.2?}, ready after {:.2?}", start.elapsed());
            measure("this crate, omni-bridge", &bridge, "openai/", SLOW_CALLS).await?;
            at_once("omni-bridge, offline/echo", &bridge, "offline/echo").await?;
            bridge.shutdown().await;
        }
        Ok(())
    })
}

async fn measure(name: &str, bridge: &Bridge, prefix: &str, count: usize) -> Outcome<()> {
    bridge.chat(ChatRequest::new(format!("{prefix}echo")).user("hi")).await?;
    let mut calls = Measure::new(count);
    for _ in 0..count {
        let call = bridge.chat(ChatRequest::new(format!("{prefix}echo")).user("hi"));
        calls.take(async { call.await.map(drop).map_err(Into::into) }).await?;
    }
    let calls = calls.end();
    let mut stream = Measure::new(DELTAS);
    let request = ChatRequest::new(format!("{prefix}count-{DELTAS}")).user("hi");
    stream.take(async { bridge.chat_stream(request).await?.finish().await.map(drop).map_err(Into::into) }).await?;
    row(name, &calls, &stream.end());
    Ok(())
}

/// Many chats at once: the time until the last response, and the client's memory.
async fn at_once(name: &str, bridge: &Bridge, model: &str) -> Outcome<()> {
    let (start, before) = (Instant::now(), memory("VmRSS"));
    let mut chats = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (bridge, request) = (bridge.clone(), ChatRequest::new(model).user("hi"));
        chats.spawn(async move { bridge.chat(request).await.map(drop) });
    }
    while let Some(done) = chats.join_next().await {
        done??;
    }
    let (wall, peak) = (start.elapsed(), memory("VmHWM"));
    println!("{AT_ONCE} chats at once, {name}: {wall:.2?}; client {before:.1} MiB before, {peak:.1} MiB at the most");
    Ok(())
}

/// This process's memory in MiB; Linux only, zero elsewhere.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_default() / 1024.0
}

/// Times of a number of equal steps.
struct Measure {
    times: Vec<Duration>,
    started: Duration,
    cpu: Duration,
    steps: usize,
}

impl Measure {
    fn new(steps: usize) -> Self {
        Measure { times: Vec::new(), started: client_time(), cpu: Duration::ZERO, steps }
    }

    async fn take(&mut self, work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
        let start = Instant::now();
        work.await?;
        self.times.push(start.elapsed());
        Ok(())
    }

    /// Reads the clock once for all steps: reading it takes longer than a step.
    fn end(mut self) -> Self {
        self.cpu = client_time().saturating_sub(self.started);
        self
    }

    /// The median where there are many, the share of a step where there is one.
    fn wall(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let steps = if times.len() == 1 { self.steps } else { 1 };
        middle.as_secs_f64() * 1e6 / steps as f64
    }

    fn processor(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.steps as f64
    }
}

fn row(name: &str, calls: &Measure, stream: &Measure) {
    println!("{name:<34}{:>14.1}{:>14.1}{:>14.2}{:>14.2}", calls.wall(), calls.processor(), stream.wall(), stream.processor());
}

/// Of this thread and the bridge's I/O thread, not of the upstream's; Linux only, zero elsewhere.
fn client_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_client = |thread: &std::path::PathBuf| {
        let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
        !name.starts_with("tokio-")
    };
    let time = |thread: std::path::PathBuf| {
        let text = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.filter(is_client).map(time).sum())
}

async fn raw(connection: &mut BufReader<TcpStream>, model: &str, stream: bool) -> Outcome<()> {
    let body = json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    connection.get_mut().write_all(head.as_bytes()).await?;
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    if !stream {
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        serde_json::from_slice::<Value>(&body)?;
        return Ok(());
    }
    let mut text = String::new();
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        if let Some(data) = line.strip_prefix("data: {") {
            let event: Value = serde_json::from_str(&format!("{{{data}"))?;
            text += event.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default();
        }
        if line == "0\r\n" {
            connection.read_line(&mut line).await?;
            return Ok(());
        }
    }
}

/// A worker that responds immediately.
fn do_nothing() -> Outcome<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line?)?;
        let id = message.get("id").cloned().unwrap_or_default();
        let model = message.pointer("/params/model").and_then(Value::as_str).unwrap_or_default();
        // As long as omni-bridge takes: both threads of the client sleep meanwhile, and their caches are cold then.
        let fast = model.strip_prefix("slow-");
        let pause = fast.map_or(Duration::ZERO, |_| Duration::from_micros(450));
        let model = fast.unwrap_or(model);
        std::thread::sleep(if model.starts_with("count-") { Duration::ZERO } else { pause });
        let count: usize = model.strip_prefix("count-").and_then(|count| count.parse().ok()).unwrap_or_default();
        for seq in 0..count {
            let params = json!({"requestId": id, "seq": seq, "delta": {"content": format!("{seq} ")}});
            writeln!(out, "{}", json!({"jsonrpc": "2.0", "method": "notifications/chat/delta", "params": params}))?;
            out.flush()?;
        }
        let result = match message.get("method").and_then(Value::as_str) {
            Some("initialize") => json!({"protocolVersion": "omni-bridge/1"}),
            Some("chat") => json!({
                "content": "heard 2", "tool_calls": [], "reasoning": null, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "heard 2"}, "usage": {"input_tokens": 9, "output_tokens": 12}, "cost_usd": null,
                "model": "m", "requested_model": "m", "provider": "openai", "id": "c-1", "logprobs": null,
                "timing": {"queued_ms": 0.1, "first_token_ms": null, "total_ms": 1.5},
                "receipt": {
                    "requested_model": "m", "served_model": "m", "deployment": null, "fallback": false, "dropped": [], "added": [], "kept": [],
                    "attempts": [{"outcome": "ok", "status": 200, "ms": 1.2, "model": "m", "provider": "openai", "deployment": null}],
                    "engine": {"name": "direct", "version": "0.1.0", "reason": null},
                },
            }),
            _ => continue,
        };
        writeln!(out, "{}", json!({"jsonrpc": "2.0", "id": id, "result": result}))?;
        out.flush()?;
    }
    Ok(())
}
