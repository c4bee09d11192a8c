//! genai, a Rust-native client, as a peer of the benchmark: `genai-peer http://127.0.0.1:8000/v1/`. See rig/src/lib.rs for commands.

use std::time::Instant;

use futures_util::StreamExt;
use genai::adapter::AdapterKind;
use genai::chat::{ChatMessage, ChatOptions, ChatRequest, ChatStreamEvent};
use genai::resolver::{AuthData, Endpoint, Error as ResolverError, ServiceTargetResolver};
use genai::{Client, ModelIden, ServiceTarget};
use rig::{Ask, Peer, Result, Told, now_ns, serve};

struct Genai {
    client: Client,
    options: ChatOptions,
}

fn main() -> Result<()> {
    let endpoint = std::env::args().nth(1).ok_or("usage: genai-peer BASE_URL")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let resolver =
            ServiceTargetResolver::from_resolver_fn(move |target: ServiceTarget| -> std::result::Result<_, ResolverError> {
                let model = ModelIden::new(AdapterKind::OpenAI, target.model.model_name);
                Ok(ServiceTarget {
                    endpoint: Endpoint::from_owned(endpoint.clone()),
                    auth: AuthData::from_single("sk-benchmark"),
                    model,
                })
            });
        let client = Client::builder().with_service_target_resolver(resolver).build()?;
        let peer = Genai { client, options: ChatOptions::default().with_capture_usage(true) };
        peer.chat(Ask::first()).await?;
        serve(peer, std::process::id()).await
    })
}

impl Peer for Genai {
    async fn chat(&self, ask: Ask) -> Result<Told> {
        let request = ChatRequest::new(messages(&ask)?);
        let mut told = Told::default();
        if !ask.stream {
            self.client.exec_chat(ask.model(), request, Some(&self.options)).await?;
            return Ok(told);
        }
        let mut events = self.client.exec_chat_stream(ask.model(), request, Some(&self.options)).await?.stream;
        while let Some(event) = events.next().await {
            let ChatStreamEvent::Chunk(chunk) = event? else { continue };
            if chunk.content.is_empty() {
                continue;
            }
            told.chunks += 1;
            told.first.get_or_insert_with(Instant::now);
            if ask.cancel {
                told.cancelled_ns = Some(now_ns());
                return Ok(told); // dropped, it closes
            }
        }
        Ok(told)
    }
}

fn messages(ask: &Ask) -> Result<Vec<ChatMessage>> {
    let messages: Vec<serde_json::Value> = serde_json::from_str(ask.messages.get())?;
    let text = |message: &serde_json::Value| message["content"].as_str().unwrap_or_default().to_owned();
    Ok(messages
        .iter()
        .map(|m| if m["role"] == "user" { ChatMessage::user(text(m)) } else { ChatMessage::assistant(text(m)) })
        .collect())
}
