//! What all load clients of the benchmark have in common: the commands that they take, and what they count.
//!
//! A client prints one line when its peer has answered a first chat, then takes commands, a line of JSON each, until its standard
//! input ends. `peers/in_process.py` is the same for what must be measured inside a Python process.
//!
//! - `{"op":"messages","messages":[...]}`: what chats say from now on. No answer.
//! - `{"op":"load","stream":false,"seconds":1.0,"count":0,"in_flight":16}`: begins chats, always as many in flight, until the time is
//!   over and `count` have begun; ends when all have. Answered with `Load`.
//! - `{"op":"cancel","count":5}`: so many streams, one at a time, each cancelled at its first text. Answered with the times of
//!   the cancels (CLOCK_MONOTONIC, ns).

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, BufReader};

pub const MODEL: &str = "gpt-4o-mini";
pub const HANGS: &str = "gpt-4o";

pub type Error = Box<dyn std::error::Error>;
pub type Result<T> = std::result::Result<T, Error>;

/// One chat to be had. A chat with `cancel` is cut off at its first text, which must close the provider's connection.
pub struct Ask {
    pub messages: Rc<RawValue>,
    pub model: Option<Rc<str>>,
    pub stream: bool,
    pub cancel: bool,
}

impl Ask {
    pub fn first() -> Self {
        let messages = RawValue::from_string(r#"[{"role":"user","content":"hello"}]"#.into()).expect("JSON");
        Self { messages: messages.into(), model: None, stream: false, cancel: false }
    }

    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(if self.cancel { HANGS } else { MODEL })
    }

    /// The body for whoever speaks OpenAI's format.
    pub fn body(&self) -> Vec<u8> {
        let usage = if self.stream { r#","stream_options":{"include_usage":true}"# } else { "" };
        let (model, messages) = (self.model(), self.messages.get());
        format!(r#"{{"model":"{model}","messages":{messages},"stream":{}{usage}}}"#, self.stream).into_bytes()
    }
}

/// How it went. `chunks` are those with text.
#[derive(Default)]
pub struct Told {
    pub chunks: usize,
    pub first: Option<Instant>,
    pub cancelled_ns: Option<u64>,
}

pub trait Peer {
    fn chat(&self, ask: Ask) -> impl Future<Output = Result<Told>>;
}

#[derive(Serialize, Default)]
pub struct Load {
    pub seconds: f64,
    pub chats: usize,
    pub chunks: usize,
    pub latencies_us: Vec<u64>,
    pub first_us: Vec<u64>,
    pub failed: usize,
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct Command<'a> {
    op: &'a str,
}

#[derive(Deserialize)]
struct Messages {
    messages: Box<RawValue>,
}

#[derive(Deserialize)]
struct Cancel {
    count: usize,
}

#[derive(Deserialize)]
struct Wanted {
    stream: bool,
    seconds: f64,
    count: usize,
    in_flight: usize,
    /// Only where a peer has more than one; the default is the upstream's.
    model: Option<Rc<str>>,
}

/// Serves commands; the first chat was had. `pid` is the process that does the peer's work.
pub async fn serve(peer: impl Peer + 'static, pid: u32) -> Result<()> {
    let peer = Rc::new(peer);
    println!("{}", serde_json::json!({"pid": pid}));
    let mut messages = Ask::first().messages;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str::<Command>(&line)?.op {
            "messages" => messages = serde_json::from_str::<Messages>(&line)?.messages.into(),
            "load" => println!("{}", serde_json::to_string(&load(&peer, &messages, serde_json::from_str(&line)?).await)?),
            "cancel" => println!("{}", serde_json::to_string(&cancel(&peer, &messages, serde_json::from_str(&line)?).await?)?),
            unknown => return Err(unknown.into()),
        }
    }
    Ok(())
}

async fn cancel(peer: &Rc<impl Peer>, messages: &Rc<RawValue>, wanted: Cancel) -> Result<Vec<u64>> {
    let mut times = Vec::new();
    for _ in 0..wanted.count {
        let told = peer.chat(Ask { messages: messages.clone(), model: None, stream: true, cancel: true }).await?;
        times.push(told.cancelled_ns.ok_or("the stream ended before it could be cancelled")?);
    }
    Ok(times)
}

async fn load(peer: &Rc<impl Peer + 'static>, messages: &Rc<RawValue>, wanted: Wanted) -> Load {
    let Wanted { stream, seconds, count, in_flight, model } = wanted;
    let (began, left) = (Instant::now(), Rc::new(Cell::new(count)));
    let slots = (0..in_flight).map(|_| {
        let (peer, messages, model, left) = (peer.clone(), messages.clone(), model.clone(), left.clone());
        tokio::task::spawn_local(async move {
            let mut all = Load::default();
            while left.get() > 0 || began.elapsed().as_secs_f64() < seconds {
                left.set(left.get().saturating_sub(1));
                let asked = Instant::now();
                match peer.chat(Ask { messages: messages.clone(), model: model.clone(), stream, cancel: false }).await {
                    Ok(told) => {
                        all.latencies_us.push(asked.elapsed().as_micros() as u64);
                        all.first_us.extend(told.first.map(|first| (first - asked).as_micros() as u64));
                        all.chunks += told.chunks;
                    }
                    Err(error) => {
                        all.failed += 1;
                        all.error = Some(error.to_string());
                        tokio::time::sleep(Duration::from_millis(1)).await; // a peer that is gone must not spin this core
                    }
                }
            }
            all
        })
    });
    let mut sum = Load::default();
    for slot in slots.collect::<Vec<_>>() {
        let one = slot.await.expect("no slot panics");
        sum.latencies_us.extend(one.latencies_us);
        sum.first_us.extend(one.first_us);
        sum.chunks += one.chunks;
        sum.failed += one.failed;
        sum.error = sum.error.or(one.error);
    }
    sum.seconds = began.elapsed().as_secs_f64();
    sum.chats = sum.latencies_us.len();
    sum
}

/// CLOCK_MONOTONIC, which all processes of a machine share.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
