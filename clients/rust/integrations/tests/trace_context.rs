//! The trace context of the current span goes to the worker.

use omni_bridge_client::ChatRequest;
use omni_bridge_client::mock::{Mock, Reply};

fn hi() -> ChatRequest {
    ChatRequest::new("m").user("hi")
}

#[tokio::test]
async fn the_trace_context_of_the_current_span_goes_with_a_request() {
    use opentelemetry::trace::TracerProvider;
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;

    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let mock = Mock::new().script(|_: &ChatRequest| Reply::text("ok"));
    let bridge = mock.spawn().await.unwrap();
    let outer = tracing::info_span!("agent");
    async {
        bridge.chat(hi()).await.unwrap();
        bridge.chat_stream(hi()).await.unwrap().finish().await.unwrap();
        bridge.chat(hi().meta([("traceparent", "mine")])).await.unwrap();
    }
    .instrument(outer.clone())
    .await;
    let sent: Vec<String> =
        mock.requests().iter().map(|request| request.meta.as_ref().unwrap()["traceparent"].as_str().unwrap().to_owned()).collect();
    let parts: Vec<&str> = sent[0].split('-').collect();
    assert_eq!((parts[0], parts[1].len(), parts[2].len(), parts[3]), ("00", 32, 16, "01"));
    assert_eq!(parts[1], sent[1].split('-').nth(1).unwrap(), "both are of the agent's trace");
    assert_ne!(parts[2], sent[1].split('-').nth(2).unwrap(), "each is its own span");
    assert_eq!(sent[2], "mine");
}
