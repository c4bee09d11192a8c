//! A web server that streams a model's text as server-sent events: `cargo run --example axum_sse`, then
//! `curl -N 'http://127.0.0.1:3000/?prompt=one+two+three'`. A reader that goes away cancels its request at the provider.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures_core::Stream;
use omni_bridge_client::{Bridge, ChatRequest, TextStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = Bridge::spawn().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, router(bridge)).await?;
    Ok(())
}

/// `GET /?prompt=...`
pub fn router(bridge: Bridge) -> Router {
    Router::new().route("/", get(stream)).with_state(bridge)
}

async fn stream(State(bridge): State<Bridge>, RawQuery(query): RawQuery) -> Result<Sse<Events>, String> {
    let query = query.unwrap_or_default();
    let prompt = query.strip_prefix("prompt=").unwrap_or("hello").replace('+', " ");
    let model = std::env::var("MODEL").unwrap_or_else(|_| "offline/echo".into());
    let stream = bridge.chat_stream(ChatRequest::new(model).user(prompt)).await.map_err(|error| error.to_string())?;
    Ok(Sse::new(Events(stream.text())))
}

/// Each text as an event, an error as an event `error`.
struct Events(TextStream);

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = |item: omni_bridge_client::Result<String>| match item {
            Ok(text) => Event::default().data(text),
            Err(error) => Event::default().event("error").data(error.message()),
        };
        Pin::new(&mut self.0).poll_next(context).map(|item| item.map(|item| Ok(event(item))))
    }
}
