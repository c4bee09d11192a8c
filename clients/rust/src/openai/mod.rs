//! OpenAI's HTTP API, served by a bridge in this process: no port, no socket.
//!
//! Owns the routes and the mapping of errors to HTTP. Refuses to know any client: [`OpenAi`] is a `tower` service, and the features
//! `async-openai` and `rig` make a client of these crates out of it.
//!
//! `POST /chat/completions`, `POST /embeddings`, `POST /responses` and `GET /models` are served, under any prefix such as `/v1`.
//! Dropping a response's future or its body cancels the request at the provider.
//!
//! ```no_run
//! use bytes::Bytes;
//! use omni_bridge_client::{Bridge, openai::OpenAi};
//!
//! # async fn run() -> omni_bridge_client::Result<()> {
//! let openai = OpenAi::new(&Bridge::spawn().await?);
//! let body = Bytes::from(r#"{"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}"#);
//! let request = http::Request::post("/v1/chat/completions").body(body).expect("a valid request");
//! let response = openai.respond(request).await;
//! println!("{}", response.status());
//! # Ok(())
//! # }
//! ```

mod body;
mod chat;
mod embeddings;
mod responses;

#[cfg(feature = "async-openai")]
mod async_openai;
#[cfg(feature = "rig")]
mod rig;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

pub use self::body::Body;
use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result};
use crate::types::Object;

/// OpenAI's HTTP API as a service: a `tower_service::Service` of `http::Request` with any body of [`Bytes`]. Cheap to clone.
///
/// ```
/// use bytes::Bytes;
/// use omni_bridge_client::{mock::Mock, openai::OpenAi};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let openai = OpenAi::new(&Mock::new().reply("hi").spawn().await?);
/// let body = r#"{"model": "any/model", "messages": [{"role": "user", "content": "hello"}]}"#;
/// let request = http::Request::post("/v1/chat/completions").body(Bytes::from(body)).expect("a valid request");
/// let response = openai.respond(request).await;
/// assert_eq!(response.status(), 200);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OpenAi {
    bridge: Bridge,
}

impl OpenAi {
    /// The API, served by this bridge.
    #[must_use]
    pub fn new(bridge: &Bridge) -> Self {
        OpenAi { bridge: bridge.clone() }
    }

    /// Serves a request. An error is a response in OpenAI's shape, with the bridge's `kind` as its `code`.
    pub async fn respond(&self, request: Request<impl Into<Bytes>>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_end_matches('/');
        let route = |suffix: &str| parts.method == Method::POST && path.ends_with(suffix);
        let served = if route("/chat/completions") {
            chat::respond(&self.bridge, &body.into()).await
        } else if route("/responses") {
            responses::respond(&self.bridge, &body.into()).await
        } else if route("/embeddings") {
            embeddings::respond(&self.bridge, &body.into()).await
        } else if parts.method == Method::GET && path.ends_with("/models") {
            models(&self.bridge).await
        } else {
            let message = format!(
                "{} {path} is not served; POST /chat/completions, /responses, /embeddings and GET /models are",
                parts.method
            );
            Err(Error::new(ErrorKind::MethodNotFound, message))
        };
        served.unwrap_or_else(|error| failure(&error))
    }
}

impl<B> tower_service::Service<Request<B>> for OpenAi
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let openai = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            Ok(match collect(body).await {
                Ok(body) => openai.respond(Request::from_parts(parts, body)).await,
                Err(error) => failure(&error),
            })
        })
    }
}

async fn collect<B>(body: B) -> Result<Bytes>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|error| invalid(format!("the request's body can't be read: {error}")))?;
        whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    Ok(whole.into())
}

async fn models(bridge: &Bridge) -> Result<Response<Body>> {
    let owner = |provider: Option<String>| provider.unwrap_or_else(|| "omni-bridge".to_owned());
    let data: Vec<Value> = (bridge.all_models().await?.into_iter())
        .map(|model| json!({"id": model.model, "object": "model", "created": 0, "owned_by": owner(model.provider)}))
        .collect();
    Ok(whole(&json!({"object": "list", "data": data})))
}

/// A JSON object from a request's body, without the members that are null.
fn object(body: &Bytes) -> Result<Object> {
    let mut object: Object =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the request's body is not a JSON object: {error}")))?;
    object.retain(|_, value| !value.is_null());
    Ok(object)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

fn whole(value: &Value) -> Response<Body> {
    with_type(Body::whole(value.to_string()), "application/json")
}

fn streamed(body: Body) -> Response<Body> {
    with_type(body, "text/event-stream")
}

fn with_type(body: Body, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn failure(error: &Error) -> Response<Body> {
    let mut response = whole(&json!({"error": error_object(error)}));
    *response.status_mut() = status(error);
    if let Some(wait) = error.retry_after() {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, wait.as_secs_f64().ceil().to_string().parse().unwrap_or(HeaderValue::from_static("1")));
        headers.insert("retry-after-ms", u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into());
    }
    response
}

fn error_object(error: &Error) -> Value {
    let class = match status(error).as_u16() {
        401 => "authentication_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    json!({"message": error.message(), "type": class, "code": error.kind().as_str(), "param": null})
}

/// The provider's status, or the one that OpenAI has for such a failure.
fn status(error: &Error) -> StatusCode {
    let by_kind = match error.kind() {
        ErrorKind::Authentication => 401,
        ErrorKind::BudgetExceeded => 402,
        ErrorKind::Permission => 403,
        ErrorKind::ModelNotFound | ErrorKind::MethodNotFound => 404,
        ErrorKind::InvalidRequest
        | ErrorKind::RejectedByProvider
        | ErrorKind::ContextLengthExceeded
        | ErrorKind::ContentPolicy
        | ErrorKind::Parse => 400,
        ErrorKind::RateLimited => 429,
        ErrorKind::Timeout => 504,
        ErrorKind::BadUpstreamResponse | ErrorKind::StreamInterrupted => 502,
        ErrorKind::ProviderUnavailable
        | ErrorKind::Overloaded
        | ErrorKind::ShuttingDown
        | ErrorKind::WorkerLost
        | ErrorKind::WorkerStart
        | ErrorKind::Closed => 503,
        _ => 500,
    };
    let failed = |status: &StatusCode| status.is_client_error() || status.is_server_error();
    let of_provider = error.status().and_then(|status| StatusCode::from_u16(status).ok()).filter(failed);
    of_provider.or_else(|| StatusCode::from_u16(by_kind).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
