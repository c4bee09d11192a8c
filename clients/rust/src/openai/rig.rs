//! A client of the crate `rig`; a bridge serves its requests.

use bytes::Bytes;
use rig_core::http_client::{
    BoxedStream, Error, HttpClientExt, LazyBody, MultipartForm, Request, Response, Result, StatusCode, StreamingResponse,
};
use rig_core::providers::openai::{OpenAI, OpenAIConfig, Route};

use super::{Body, OpenAi, collect};
use crate::bridge::Bridge;

impl Bridge {
    /// A client of the crate `rig`, for completions, agents and embeddings. Any model that the worker serves can be named.
    ///
    /// ```no_run
    /// use omni_bridge_client::Bridge;
    /// use rig_core::completion::CompletionRequest;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let model = Bridge::spawn().await?.rig().completion("anthropic/claude-sonnet-4-5");
    /// println!("{}", model.call(CompletionRequest::new("hi")).await?.text());
    /// # Ok(())
    /// # }
    /// ```
    pub fn rig(&self) -> OpenAI {
        // No request leaves this process: the base is a name, and the key is in the worker.
        let config = OpenAIConfig::new("none").with_base_url("http://omni-bridge/v1").with_route(Route::Chat);
        config.connect(OpenAi::new(self))
    }
}

impl HttpClientExt for OpenAi {
    fn send<T, U>(&self, request: Request<T>) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        T: Into<Bytes> + Send,
        U: From<Bytes> + Send + 'static,
    {
        let (openai, request) = (self.clone(), request.map(Into::into));
        async move {
            let response = succeeded(openai.respond(request).await).await?;
            Ok(response.map(|body| -> LazyBody<U> { Box::pin(async move { Ok(read(body).await?.into()) }) }))
        }
    }

    fn send_multipart<U>(&self, _: Request<MultipartForm>) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        U: From<Bytes> + Send + 'static,
    {
        let message = "a bridge serves no multipart requests (files, transcriptions)".to_owned();
        async move { Err(Error::non_success_with_details(StatusCode::NOT_FOUND, http::HeaderMap::new(), message)) }
    }

    fn send_streaming<T>(&self, request: Request<T>) -> impl Future<Output = Result<StreamingResponse>> + Send
    where
        T: Into<Bytes> + Send,
    {
        let (openai, request) = (self.clone(), request.map(Into::into));
        async move {
            let response = succeeded(openai.respond(request).await).await?;
            Ok(response.map(|body| -> BoxedStream { Box::pin(Unfailing(body)) }))
        }
    }
}

/// Rig takes an unsuccessful status as an error of the client.
async fn succeeded(response: Response<Body>) -> Result<Response<Body>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let text = String::from_utf8_lossy(&read(body).await?).into_owned();
    Err(Error::non_success_with_details(parts.status, parts.headers, text))
}

async fn read(body: Body) -> Result<Bytes> {
    collect(body).await.map_err(Error::instance)
}

struct Unfailing(Body);

impl futures_core::Stream for Unfailing {
    type Item = Result<Bytes>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        match std::pin::Pin::new(&mut self.0).poll_next(context) {
            std::task::Poll::Ready(Some(Ok(bytes))) => std::task::Poll::Ready(Some(Ok(bytes))),
            std::task::Poll::Ready(None) => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    }
}
