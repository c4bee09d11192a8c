//! A provider: a small HTTP server that speaks OpenAI's chat completions. The model's name says what it does.
//!
//! `echo` responds with the length of the last message, or streams its words; `hang` sends one delta, or nothing at all if it is not
//! told to stream, and waits until the client closes; `count-N` streams N deltas.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What it has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub requests: usize,
    /// Connections that a client closed while a response was due.
    pub closed: usize,
}

pub struct Upstream {
    pub base_url: String,
    pub address: std::net::SocketAddr,
    /// Of the requests so far.
    pub keys: Arc<Mutex<Vec<String>>>,
    seen: Arc<watch::Sender<Seen>>,
    task: AbortHandle,
}

impl Upstream {
    pub async fn start() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let keys = Arc::<Mutex<Vec<String>>>::default();
        let task = tokio::spawn({
            let (seen, keys) = (Arc::clone(&seen), Arc::clone(&keys));
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let _ = stream.set_nodelay(true);
                    let (seen, keys) = (Arc::clone(&seen), Arc::clone(&keys));
                    tokio::spawn(async move { serve(stream, &seen, &keys).await });
                }
            }
        });
        Upstream { base_url: format!("http://{address}/v1"), address, keys, seen, task: task.abort_handle() }
    }

    /// What the worker needs to ask here.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let none = "127.0.0.1".to_owned();
        [
            ("OPENAI_BASE_URL", self.base_url.clone()),
            ("OPENAI_API_KEY", "sk-test".into()),
            ("NO_PROXY", none.clone()),
            ("no_proxy", none),
        ]
    }

    pub async fn wait(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        *super::soon(self.seen.subscribe().wait_for(condition)).await.unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, seen: &watch::Sender<Seen>, keys: &Mutex<Vec<String>>) -> Option<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let body = request(&mut reader, keys).await?;
        seen.send_modify(|seen| seen.requests += 1);
        let model = body["model"].as_str().unwrap_or_default();
        let heard =
            body["messages"].as_array().and_then(|all| all.last()).and_then(|last| last["content"].as_str()).unwrap_or_default();
        let streams = body["stream"] == true;
        if model == "hang" {
            if streams {
                let first = format!("{SSE}{}", http_chunk(&chunk(Some("first"), None)));
                writer.write_all(first.as_bytes()).await.ok()?;
            }
            let _ = reader.read_u8().await; // until the client closes
            seen.send_modify(|seen| seen.closed += 1);
            return None;
        }
        let reply = match (streams, model.strip_prefix("count-").and_then(|count| count.parse::<usize>().ok())) {
            (true, Some(count)) => stream_of((0..count).map(|number| format!("{number} "))),
            (true, None) => stream_of(heard.split_inclusive(' ').map(str::to_owned)),
            (false, _) => plain(&format!("heard {}", heard.len())),
        };
        writer.write_all(reply.as_bytes()).await.ok()?;
    }
}

async fn request(reader: &mut (impl AsyncBufReadExt + Unpin), keys: &Mutex<Vec<String>>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
            if ["authorization", "x-api-key", "x-goog-api-key"].contains(&name.to_ascii_lowercase().as_str()) {
                keys.lock().unwrap().push(value.trim().trim_start_matches("Bearer ").to_owned());
            }
        } else if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.ok()?;
    serde_json::from_slice(&body).ok()
}

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn usage() -> Value {
    json!({"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21})
}

fn plain(content: &str) -> String {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"});
    let body = json!({"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage()});
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn chunk(content: Option<&str>, finish: Option<&str>) -> String {
    let delta = content.map_or_else(|| json!({}), |content| json!({"role": "assistant", "content": content}));
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    let body = json!({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]});
    format!("data: {body}\n\n")
}

fn http_chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn stream_of(texts: impl Iterator<Item = String>) -> String {
    let texts = texts.map(|text| http_chunk(&chunk(Some(&text), None)));
    let last = json!({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage()});
    let end = [chunk(None, Some("stop")), format!("data: {last}\n\n"), "data: [DONE]\n\n".to_owned()];
    [SSE.to_owned()]
        .into_iter()
        .chain(texts)
        .chain(end.iter().map(|data| http_chunk(data)))
        .chain(["0\r\n\r\n".to_owned()])
        .collect()
}
