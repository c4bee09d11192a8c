//! The load client of a worker on a pipe, and of a peer that has a port. Both count the same: from the moment a request is handed to
//! the kernel to the moment its answer has been read and parsed.
//!
//!     load pipe omni-bridge --stdio             starts it, and is its client
//!     load http http://127.0.0.1:4000/v1/chat/completions [name: value]...   headers

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rig::{Ask, Error, Peer, Result, Told, now_ns, serve};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// LiteLLM's proxy takes that long to start on a busy machine.
const START_SECONDS: u64 = 120;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        match arguments.split_first() {
            Some((kind, command)) if kind == "pipe" && !command.is_empty() => worker(command).await,
            Some((kind, address)) if kind == "http" && !address.is_empty() => port(&address[0], &address[1..]).await,
            _ => Err("usage: load pipe COMMAND... | load http URL [HEADER]...".into()),
        }
    })
}

async fn worker(command: &[String]) -> Result<()> {
    let mut child =
        Command::new(&command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let waiting = Waiting::default();
    tokio::task::spawn_local(read(child.stdout.take().ok_or("no stdout")?, waiting.clone()));
    let pipe = Pipe { stdin: tokio::sync::Mutex::new(child.stdin.take().ok_or("no stdin")?), waiting, ids: Default::default() };
    pipe.chat(Ask::first()).await?;
    serve(pipe, child.id().ok_or("the worker has ended")?).await?;
    child.wait().await?; // `pipe` is gone, and so is the worker's standard input
    Ok(())
}

async fn port(url: &str, headers: &[String]) -> Result<()> {
    let began = Instant::now();
    let http = Http::new(url, headers)?;
    loop {
        match http.chat(Ask::first()).await {
            Ok(_) => return serve(http, std::process::id()).await,
            Err(error) if began.elapsed().as_secs() > START_SECONDS => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

// --- a worker on a pipe ---

type Waiting = Rc<RefCell<HashMap<u64, UnboundedSender<Event>>>>;

enum Event {
    Delta,
    Response { error: Option<i64>, text: String },
}

struct Pipe {
    stdin: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    ids: std::cell::Cell<u64>,
}

impl Pipe {
    async fn write(&self, parts: &[&str]) -> Result<()> {
        let mut stdin = self.stdin.lock().await;
        stdin.write_all(parts.concat().as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    fn expect(&self) -> (u64, UnboundedReceiver<Event>) {
        let (sender, receiver) = unbounded_channel();
        let id = self.ids.get() + 1;
        self.ids.set(id);
        self.waiting.borrow_mut().insert(id, sender);
        (id, receiver)
    }
}

impl Peer for Pipe {
    async fn chat(&self, ask: Ask) -> Result<Told> {
        let (id, mut events) = self.expect();
        let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"chat","params":{{"model":"{}","messages":"#, name(&ask));
        self.write(&[&head, ask.messages.get(), if ask.stream { ",\"stream\":true}}\n" } else { "}}\n" }]).await?;
        let mut told = Told::default();
        loop {
            match events.recv().await.ok_or("the worker has ended")? {
                Event::Response { error: None, .. } => return Ok(told),
                Event::Response { error: Some(-32800), .. } if ask.cancel => return Ok(told),
                Event::Response { text, .. } => return Err(text.into()),
                Event::Delta => {
                    told.chunks += 1;
                    told.first.get_or_insert_with(Instant::now);
                    if ask.cancel {
                        told.cancelled_ns = Some(now_ns());
                        let head = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#;
                        self.write(&[head, &id.to_string(), "}}\n"]).await?;
                    }
                }
            }
        }
    }
}

/// The worker's models that need no provider are named as they are.
fn name(ask: &Ask) -> String {
    ask.model.as_ref().map_or_else(|| format!("openai/{}", ask.model()), |model| model.to_string())
}

#[derive(Deserialize)]
struct Line {
    id: Option<u64>,
    params: Option<Delta>,
    error: Option<Fault>,
    #[serde(rename = "result")]
    _result: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(rename = "requestId")]
    request_id: Option<u64>,
}

#[derive(Deserialize)]
struct Fault {
    code: i64,
}

async fn read(stdout: ChildStdout, waiting: Waiting) -> Result<()> {
    let mut lines = BufReader::with_capacity(256 * 1024, stdout).lines();
    while let Some(text) = lines.next_line().await.ok().flatten() {
        let Ok(line) = serde_json::from_str::<Line>(&text) else { continue };
        if let Some(id) = line.params.and_then(|params| params.request_id) {
            if let Some(sender) = waiting.borrow().get(&id) {
                let _ = sender.send(Event::Delta);
            }
        } else if let Some(sender) = line.id.and_then(|id| waiting.borrow_mut().remove(&id)) {
            let error = line.error.map(|error| error.code);
            let _ = sender.send(Event::Response { error, text: if error.is_some() { text } else { String::new() } });
        }
    }
    waiting.borrow_mut().clear(); // the worker has ended: who waits for it hears of that
    Ok(())
}

// --- a peer with a port ---

struct Http {
    host: String,
    path: String,
    headers: Vec<(String, String)>,
    idle: RefCell<Vec<Connection>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Http {
    fn new(url: &str, headers: &[String]) -> Result<Self> {
        let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or("the URL has no path")?;
        let headers = headers.iter().map(|header| header.split_once(": ").map(|(name, value)| (name.into(), value.into())));
        let headers = headers.collect::<Option<_>>().ok_or("a header is 'name: value'")?;
        Ok(Self { host: host.into(), path: format!("/{path}"), headers, idle: RefCell::default() })
    }

    async fn connection(&self) -> Result<Connection> {
        loop {
            let Some(mut idle) = self.idle.borrow_mut().pop() else { break };
            if idle.sender.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let socket = tokio::net::TcpStream::connect(&self.host).await?;
        socket.set_nodelay(true)?;
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let driver = tokio::task::spawn_local(async move {
            let _ = driver.await;
        });
        Ok(Connection { sender, driver })
    }

    fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::post(&self.path).header("host", &self.host).header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(ask.body().into()))?)
    }
}

impl Peer for Http {
    async fn chat(&self, ask: Ask) -> Result<Told> {
        let mut connection = self.connection().await?;
        let response = connection.sender.send_request(self.request(&ask)?).await?;
        if !response.status().is_success() {
            return Err(failure(response).await);
        }
        let told = if ask.stream { stream(response, &ask).await? } else { whole(response).await? };
        if told.cancelled_ns.is_some() {
            connection.driver.abort(); // and the socket with it
        } else {
            self.idle.borrow_mut().push(connection);
        }
        Ok(told)
    }
}

async fn failure(response: Response<Incoming>) -> Error {
    let status = response.status();
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(500)])).into()
}

async fn whole(response: Response<Incoming>) -> Result<Told> {
    let body = response.into_body().collect().await?.to_bytes();
    let _: IgnoredAny = serde_json::from_slice(&body)?;
    Ok(Told::default())
}

async fn stream(response: Response<Incoming>, ask: &Ask) -> Result<Told> {
    let (mut body, mut told, mut rest) = (response.into_body(), Told::default(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if !has_text(&line) {
                continue;
            }
            told.chunks += 1;
            told.first.get_or_insert_with(Instant::now);
            if ask.cancel {
                told.cancelled_ns = Some(now_ns());
                return Ok(told);
            }
        }
    }
    if told.chunks == 0 { Err("the stream held no text".into()) } else { Ok(told) }
}

#[derive(Deserialize)]
struct Chunk {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Text,
}

#[derive(Deserialize)]
struct Text {
    content: Option<String>,
}

fn has_text(line: &[u8]) -> bool {
    let Some(data) = line.strip_prefix(b"data: ") else { return false };
    let chunk: Option<Chunk> = serde_json::from_slice(data).ok();
    let text = chunk.and_then(|chunk| chunk.choices.into_iter().next()).and_then(|choice| choice.delta.content);
    text.is_some_and(|text| !text.is_empty())
}
