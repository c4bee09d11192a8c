//! A client of the crate `async-openai`; a bridge serves its requests.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;

use super::OpenAi;
use crate::bridge::Bridge;

impl Bridge {
    /// A client of the crate `async-openai`. Any model that the worker serves can be named in its requests.
    ///
    /// ```no_run
    /// use async_openai::types::chat::{ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs};
    /// use omni_bridge_client::Bridge;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Bridge::spawn().await?.async_openai();
    /// let request = CreateChatCompletionRequestArgs::default()
    ///     .model("anthropic/claude-sonnet-4-5")
    ///     .messages([ChatCompletionRequestUserMessage::from("hi").into()])
    ///     .build()?;
    /// let response = client.chat().create(request).await?;
    /// println!("{:?}", response.choices[0].message.content);
    /// # Ok(())
    /// # }
    /// ```
    pub fn async_openai(&self) -> Client<OpenAIConfig> {
        // No request leaves this process: the base is a name, and the key is in the worker.
        let config = OpenAIConfig::new().with_api_base("http://omni-bridge/v1").with_api_key("");
        Client::build(reqwest::Client::new(), config).with_http_service(Service(OpenAi::new(self)))
    }
}

#[derive(Clone)]
struct Service(OpenAi);

impl tower_service::Service<HttpRequestFactory> for Service {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let openai = self.0.clone();
        Box::pin(async move {
            let mut request = factory.build().await?;
            let body = request.body_mut().take().and_then(|body| body.as_bytes().map(bytes::Bytes::copy_from_slice));
            let mut plain = http::Request::new(body.unwrap_or_default());
            *plain.method_mut() = request.method().clone();
            *plain.uri_mut() = request.url().path().parse().unwrap_or_default();
            Ok(openai.respond(plain).await.map(reqwest::Body::wrap).into())
        })
    }
}
