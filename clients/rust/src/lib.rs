//! Chat with any LLM provider from Rust, through omni-bridge: a child process that speaks line-delimited JSON-RPC on its stdin and
//! stdout and uses LiteLLM. No provider code in the agent, no port, no server to run.
//!
//! ```no_run
//! use omni_bridge_client::{Bridge, ChatRequest};
//!
//! # async fn run() -> omni_bridge_client::Result<()> {
//! let bridge = Bridge::spawn().await?;
//! let response = bridge.chat(ChatRequest::new("openai/gpt-4o-mini").user("hi")).await?;
//! println!("{}", response.text());
//! bridge.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! - **Tools**: [`ChatRequest::tool`], [`ChatResponse::tool_calls`], [`ToolCall::parse`], [`Message::tool`]. Push
//!   [`ChatResponse::message`] into the next request as it is.
//! - **Streams**: [`Bridge::chat_stream`] gives a [`ChatStream`] of deltas with the whole response at its end.
//! - **Cancelling** is dropping: a call's future or a stream. The worker closes the connection to the provider, which ends the bill;
//!   [`ChatStream::cancel`] waits until the worker has confirmed that.
//! - **Errors** have what a caller needs to react: [`Error::kind`], [`Error::is_retryable`], [`Error::retry_after`], [`Error::was_sent`],
//!   [`Error::partial`]. A request is never retried silently once a byte of it was sent.
//! - **Workers** are found next to the agent's executable or on `PATH`, restarted when they crash, replaced when they have grown
//!   ([`Recycling`]), spread over ([`BridgeBuilder::workers`]) and never left behind.
//! - **Configuration**: [`LlmConfig`] reads the host's own TOML or YAML.
//! - **Keys** can stay with the host: [`BridgeBuilder::credentials`] takes a closure that returns each when it is needed.
//! - **Logs** of the worker are `tracing` events with the target `omni_bridge::worker`.
//!
//! # Waiting
//!
//! A request waits while the worker has its maximum in flight (`maxInFlight`, 256), and while 32 others wait for the pipe. Responses
//! never wait: each is read as it arrives and passed to its caller. A stream that is read slowly keeps 256 deltas one by one and joins
//! further ones to the last, so it needs no more memory than its response; at 64 MiB of unread text it is cancelled.
//!
//! # Runtimes
//!
//! A bridge does its I/O on a separate thread, `omni-bridge-io`. Its futures can be awaited on any tokio runtime, on another
//! executor, and on a runtime other than the one that spawned the bridge.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(clippy::pedantic)]
#![allow(clippy::missing_errors_doc, reason = "every call fails with the crate's one `Error`, which is described there")]
#![allow(clippy::doc_markdown, reason = "OpenAI, LiteLLM and OpenTelemetry are names in prose, not items")]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable, clippy::todo)
)]

pub mod blocking;
mod bridge;
mod builder;
mod call;
mod cassette;
mod config;
mod connection;
mod credentials;
mod deadline;
mod error;
mod framing;
mod io;
mod locate;
pub mod mock;
#[cfg(feature = "openai")]
pub mod openai;
mod process;
mod retry;
mod spans;
mod stream;
#[cfg(feature = "schema")]
mod structured;
mod supervisor;
mod tools;
mod wire;
#[macro_use]
pub mod types;
mod settings;

pub use bridge::{Bridge, WorkerInfo};
pub use builder::BridgeBuilder;
pub use config::{BridgeConfig, LlmBackend, LlmConfig};
pub use credentials::{Credential, CredentialRequest};
pub use error::{Error, ErrorKind, NearestRequest, Partial, Result};
pub use retry::RetryPolicy;
pub use settings::{BudgetLimit, ChatEngine, LogLevel, TraceContent};
pub use stream::{ChatStream, TextStream};
pub use supervisor::Recycling;
pub use tools::{Step, ToolRun, ToolRunResult, ToolSet};
pub use types::{
    ChatDelta, ChatRequest, ChatResponse, Content, ContentPart, Deadlines, EmbedRequest, FinishReason, Message, Receipt,
    RerankRequest, Role, Tool, ToolCall, ToolChoice, Usage,
};
