//! An OpenAI-like provider that is never the bottleneck: it reads a request, looks at two words of it, and answers from memory.
//!
//! `gpt-4o-mini` answers; with `"stream": true` in 200 events, each written by itself, no two alike. `gpt-4o` sends two events and
//! then nothing, until its caller hangs up. `GET /closed` tells when each of those did (CLOCK_MONOTONIC, ns), and forgets it.
//!
//! Other formats are in a file that is given as an argument: `[{"path": ":generateContent", "stream": false, "type": "...",
//! "parts": ["...", ...]}]`. A request whose path ends so, and that has `"stream":true` or not, gets these parts, each written by
//! itself; a character of a part is a byte.
//!
//! Prints its port, and ends when its standard input does.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rig::now_ns;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

const EVENTS: usize = 200;
const BEFORE_HANGING: usize = 2;
/// The two words are in the first or the last of these bytes; between them are messages, which may be megabytes.
const WINDOW: usize = 2048;

type Closed = Arc<Mutex<Vec<u64>>>;
type Answer = Response<Either<Full<Bytes>, Events>>;
type Routes = Arc<Vec<Route>>;

/// A response in another format than OpenAI's.
#[derive(Deserialize)]
struct Route {
    path: String,
    /// Where a path serves both: whether the body must have `"stream":true`.
    stream: Option<bool>,
    r#type: String,
    parts: Vec<String>,
    #[serde(skip)]
    bytes: Arc<[Bytes]>,
}

fn routes() -> std::io::Result<Routes> {
    let Some(file) = std::env::args().nth(1) else { return Ok(Routes::default()) };
    let mut routes: Vec<Route> = serde_json::from_slice(&std::fs::read(file)?)?;
    for route in &mut routes {
        route.bytes = route.parts.iter().map(|part| part.chars().map(|c| c as u8).collect::<Vec<u8>>().into()).collect();
    }
    Ok(routes.into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let routes = routes()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let closed = Closed::default();
    let serve = async {
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (closed, routes) = (closed.clone(), routes.clone());
            let service = service_fn(move |request| answer(request, closed.clone(), routes.clone()));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    };
    tokio::select! {
        ended = serve => ended,
        _ = end_of_input() => Ok(()),
    }
}

async fn end_of_input() {
    let mut input = tokio::io::stdin();
    while input.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
}

async fn answer(request: Request<Incoming>, closed: Closed, routes: Routes) -> Result<Answer, hyper::Error> {
    if request.uri().path() == "/closed" {
        let times = std::mem::take(&mut *closed.lock().unwrap());
        return Ok(whole(serde_json::to_vec(&times).unwrap()));
    }
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let ends = [&body[..body.len().min(WINDOW)], &body[body.len().saturating_sub(WINDOW)..]];
    let has = |word: &str| ends.iter().any(|end| end.windows(word.len()).any(|bytes| bytes == word.as_bytes()));
    let stream = has("\"stream\":true") || has("\"stream\": true");
    if let Some(route) = routes.iter().find(|route| path.ends_with(&route.path) && route.stream.is_none_or(|is| is == stream)) {
        let events = Events { sent: 0, last: route.bytes.len(), paused: false, closed, parts: Some(route.bytes.clone()) };
        return Ok(Response::builder().header("content-type", &route.r#type).body(Either::Right(events)).unwrap());
    }
    if !stream {
        return Ok(whole(ANSWER.into()));
    }
    let last = if has("\"gpt-4o\"") { BEFORE_HANGING } else { EVENTS };
    let events = Events { sent: 0, last, paused: false, closed, parts: None };
    Ok(Response::builder().header("content-type", "text/event-stream").body(Either::Right(events)).unwrap())
}

fn whole(body: Vec<u8>) -> Answer {
    let body = Either::Left(Full::new(Bytes::from(body)));
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

const ANSWER: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,
"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant",
"content":"Rayleigh scattering: the air sends short waves of light to all sides more than long ones, so blue comes from everywhere.",
"refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":194,"completion_tokens":31,
"total_tokens":225,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,
"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default",
"system_fingerprint":"fp_06737a9306"}"#;

/// The body of a stream. It yields after each event, so that each is a write of its own, as from a model that thinks in between.
struct Events {
    sent: usize,
    last: usize,
    paused: bool,
    closed: Closed,
    /// Of another format; these are all, and nothing follows them.
    parts: Option<Arc<[Bytes]>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.paused = !self.paused;
        if self.paused {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let position = self.sent;
        self.sent += 1;
        if let Some(parts) = &self.parts {
            return Poll::Ready(parts.get(position).map(|part| Ok(Frame::data(part.clone()))));
        }
        if position < self.last {
            return Poll::Ready(Some(Ok(Frame::data(event(position)))));
        }
        if self.last == BEFORE_HANGING {
            self.sent = self.last;
            return Poll::Pending; // for good: the one that has to wake it is hyper, when the caller hangs up
        }
        Poll::Ready((position == self.last).then(|| Ok(Frame::data(end()))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.last == BEFORE_HANGING && self.parts.is_none() {
            self.closed.lock().unwrap().push(now_ns());
        }
    }
}

fn event(position: usize) -> Bytes {
    let delta = if position == 0 {
        r#"{"role":"assistant","content":"","refusal":null}"#.to_owned()
    } else {
        format!(r#"{{"content":" word{position}"}}"#)
    };
    chunk(&format!(r#"[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}],"usage":null"#))
}

fn end() -> Bytes {
    let finish = chunk(r#"[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null"#);
    let usage = chunk(r#"[],"usage":{"prompt_tokens":194,"completion_tokens":199,"total_tokens":393}"#);
    [&finish[..], &usage[..], b"data: [DONE]\n\n"].concat().into()
}

fn chunk(choices: &str) -> Bytes {
    let head = r#"data: {"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1741570283,"#;
    let model = r#""model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_06737a9306","choices":"#;
    format!("{head}{model}{choices}}}\n\n").into()
}
