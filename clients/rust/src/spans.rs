//! A call as a `tracing` span, with the attributes that OpenTelemetry has for generative AI, and its trace context for the worker.
//!
//! Owns the names of the fields. Refuses to record a prompt or a response.

use tracing::Span;
use tracing::field::Empty;

use crate::error::Error;
use crate::types::{ChatResponse, Object, Usage};

/// The span of a call, a child of the current one. Its target is `omni_bridge::client`.
pub(crate) fn span(operation: &'static str, model: &str) -> Span {
    tracing::info_span!(
        target: "omni_bridge::client",
        "gen_ai",
        otel.name = format_args!("{operation} {model}"),
        otel.kind = "client",
        gen_ai.operation.name = operation,
        gen_ai.request.model = model,
        gen_ai.provider.name = Empty,
        gen_ai.response.model = Empty,
        gen_ai.response.id = Empty,
        gen_ai.response.finish_reasons = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        omni_bridge.cost_usd = Empty,
        error.r#type = Empty,
        otel.status_code = Empty,
    )
}

pub(crate) fn record_response(span: &Span, response: &ChatResponse) {
    record_model(span, response.provider.as_deref(), response.model.as_deref(), response.usage.as_ref(), response.cost_usd);
    if let Some(id) = &response.id {
        span.record("gen_ai.response.id", id);
    }
    if let Some(reason) = &response.finish_reason {
        span.record("gen_ai.response.finish_reasons", reason.as_str());
    }
}

pub(crate) fn record_model(span: &Span, provider: Option<&str>, model: Option<&str>, usage: Option<&Usage>, cost: Option<f64>) {
    if span.is_disabled() {
        return;
    }
    let tokens = |count: fn(&Usage) -> Option<u64>| usage.and_then(count);
    span.record("gen_ai.provider.name", provider);
    span.record("gen_ai.response.model", model);
    span.record("gen_ai.usage.input_tokens", tokens(|usage| usage.input_tokens));
    span.record("gen_ai.usage.output_tokens", tokens(|usage| usage.output_tokens));
    span.record("omni_bridge.cost_usd", cost);
}

pub(crate) fn record_error(span: &Span, error: &Error) {
    span.record("error.type", error.kind().as_str());
    span.record("otel.status_code", "ERROR");
}

/// `traceparent` and `tracestate` (W3C Trace Context) of a span; empty if it belongs to no trace.
#[cfg(feature = "opentelemetry")]
pub(crate) fn trace_context(span: &Span) -> Object {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let context = span.context();
    let current = context.span();
    let current = current.span_context();
    let mut members = Object::new();
    if current.is_valid() {
        let parent = format!("00-{}-{}-{:02x}", current.trace_id(), current.span_id(), current.trace_flags().to_u8());
        members.insert("traceparent".to_owned(), parent.into());
        let state = current.trace_state().header();
        if !state.is_empty() {
            members.insert("tracestate".to_owned(), state.into());
        }
    }
    members
}

/// Without the feature `opentelemetry` a span has no trace context.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn trace_context(_: &Span) -> Object {
    Object::new()
}
