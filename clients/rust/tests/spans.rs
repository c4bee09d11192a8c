//! A call as a span. In a program of its own: `tracing` caches for the whole process which spans are of interest.

use std::sync::{Arc, Mutex};

use omni_bridge_client::mock::{Mock, Reply};
use omni_bridge_client::{ChatRequest, ErrorKind};

fn hi() -> ChatRequest {
    ChatRequest::new("m").user("hi")
}

#[derive(Clone, Default)]
struct Fields(Arc<Mutex<Vec<String>>>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{}={value:?}", field.name()));
    }
}

impl tracing::Subscriber for Fields {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "omni_bridge::client" && metadata.is_span()
    }
    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        attributes.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_chat_is_a_span_with_genai_fields_and_without_content() {
    let fields = Fields::default();
    let _guard = tracing::subscriber::set_default(fields.clone());
    let mock = Mock::new()
        .reply(Reply::text("a secret").with("cost_usd", 0.5))
        .reply("streamed")
        .reply(Reply::error(ErrorKind::RateLimited));
    let bridge = mock.spawn().await.unwrap();
    bridge.chat(hi()).await.unwrap();
    let seen = fields.0.lock().unwrap().join("\n");
    for wanted in [
        "otel.name=chat m",
        "gen_ai.operation.name=\"chat\"",
        "gen_ai.request.model=\"m\"",
        "gen_ai.provider.name=\"mock\"",
        "gen_ai.response.model=\"m\"",
        "gen_ai.response.finish_reasons=\"stop\"",
        "omni_bridge.cost_usd=0.5",
    ] {
        assert!(seen.contains(wanted), "{wanted} is missing in:\n{seen}");
    }
    fields.0.lock().unwrap().clear();
    bridge.chat_stream(hi()).await.unwrap().finish().await.unwrap();
    assert!(fields.0.lock().unwrap().join("\n").contains("gen_ai.response.finish_reasons=\"stop\""));
    bridge.chat(hi()).await.unwrap_err();
    let seen = fields.0.lock().unwrap().join("\n");
    assert!(seen.contains("error.type=\"rate_limited\"") && !seen.contains("secret") && !seen.contains("hi\""), "{seen}");
}
