//! `credentials/get`: the host's closure and the worker's requests, with a stand-in and with the real worker at a real upstream.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::upstream::Upstream;
use common::{Peer, said, soon, until, worker};
use omni_bridge_client::{Bridge, ChatRequest, Credential, EmbedRequest, ErrorKind};
use serde_json::{Value, json};

const MODELS: [&str; 3] = ["openai/gpt-4o-mini", "anthropic/claude-haiku-4-5", "gemini/gemini-flash-latest"];

fn request(number: u64, provider: &str) -> Value {
    let params = json!({"provider": provider, "reason": "missing", "base_url": "https://models.example"});
    json!({"jsonrpc": "2.0", "id": format!("omni-bridge:{number}"), "method": "credentials/get", "params": params})
}

async fn pair(builder: omni_bridge_client::BridgeBuilder) -> (Bridge, Peer) {
    Peer::pair_of(builder, json!({"maxMessageBytes": 1 << 20, "maxInFlight": 256})).await
}

#[tokio::test]
async fn the_closure_gets_the_request_and_its_key_is_the_result() {
    let builder = Bridge::builder().credentials(|request| async move {
        assert_eq!((request.base_url.as_deref(), request.was_rejected()), (Some("https://models.example"), false));
        if request.provider == "denied" {
            return Err("the user said no");
        }
        assert_ne!(request.provider, "panics");
        Ok(Credential::api_key("sk-1").expires_in(Duration::from_secs(60)).with("base_url", "https://other.example"))
    });
    let (_bridge, mut peer) = pair(builder).await;
    peer.send(request(1, "openai")).await;
    let response = peer.next().await;
    assert_eq!(response["id"], "omni-bridge:1");
    assert_eq!(response["result"], json!({"api_key": "sk-1", "expires_in_seconds": 60.0, "base_url": "https://other.example"}));
    peer.send(request(2, "denied")).await;
    assert_eq!(peer.next().await["error"]["message"], "the user said no");
    peer.send(request(3, "panics")).await;
    assert_eq!(peer.next().await["error"]["message"], "the client's closure panicked");
    peer.send(json!({"jsonrpc": "2.0", "id": "omni-bridge:4", "method": "sampling/createMessage", "params": {}})).await;
    assert_eq!(peer.next().await["error"]["code"], -32601);
}

#[tokio::test]
async fn a_client_without_a_closure_rejects_the_request_and_continues() {
    let (bridge, mut peer) = Peer::pair().await;
    peer.send(request(1, "openai")).await;
    assert_eq!(peer.next().await["error"]["code"], -32601);
    let chat = tokio::spawn(async move { bridge.chat(ChatRequest::new("m").user("hi")).await });
    let request = peer.next().await;
    peer.respond(&request, said("hello")).await;
    assert_eq!(soon(chat).await.unwrap().unwrap().text(), "hello");
}

#[tokio::test]
async fn a_cancel_of_the_worker_and_its_end_drop_the_future() {
    struct Noted(Arc<AtomicUsize>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let notes = (Arc::clone(&dropped), Arc::clone(&begun));
    let builder = Bridge::builder().credentials(move |_| {
        let noted = Noted(Arc::clone(&notes.0));
        notes.1.fetch_add(1, Ordering::SeqCst);
        async move {
            std::future::pending::<()>().await;
            drop(noted);
            Ok::<_, String>(Credential::none())
        }
    });
    let (bridge, mut peer) = pair(builder).await;
    peer.send(request(1, "openai")).await;
    peer.send(request(2, "anthropic")).await;
    until("both have begun", || begun.load(Ordering::SeqCst) == 2).await;
    let params = json!({"requestId": "omni-bridge:1"});
    peer.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    until("the first is dropped", || dropped.load(Ordering::SeqCst) == 1).await;
    drop(bridge);
    until("the second is dropped", || dropped.load(Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn the_capability_has_the_providers_and_the_time() {
    let builder = Bridge::builder()
        .credentials_for(["bedrock"])
        .credentials_timeout(Duration::from_secs(90))
        .credentials(|_| async { Ok::<_, String>(Credential::aws("AKIA", "secret")) });
    let (client, mut peer) = Peer::ends();
    let (reader, writer) = tokio::io::split(client);
    let connecting = tokio::spawn(async move { builder.connect(reader, writer).await });
    let request = peer.next().await;
    assert_eq!(request["params"]["capabilities"], json!({"credentials": {"providers": ["bedrock"], "timeout_ms": 90_000}}));
    connecting.abort();
}

#[test]
fn a_key_is_not_in_its_debug_text() {
    let shown = format!("{:?}", Credential::api_key("sk-secret").expires_in(Duration::from_secs(1)));
    assert!(shown.contains("api_key") && !shown.contains("sk-secret"), "{shown}");
}

#[tokio::test]
async fn a_real_worker_gets_the_keys_of_all_three_formats_with_and_without_engines() {
    for flags in [&[][..], &["--engines", "1"]] {
        let upstream = Upstream::start().await;
        let requested = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requested);
        let bridge = worker()
            .args(flags)
            .env("OPENAI_BASE_URL", upstream.base_url.clone())
            .env("ANTHROPIC_BASE_URL", format!("http://{}", upstream.address))
            .env("GEMINI_API_BASE", format!("http://{}/v1beta", upstream.address))
            .credentials(move |request| {
                noted.lock().unwrap().push(request.provider.clone());
                async move {
                    match request.provider.as_str() {
                        "anthropic" => Err("it is locked".to_owned()),
                        provider => Ok(Credential::api_key(format!("key-of-{provider}-0123456789"))),
                    }
                }
            })
            .spawn();
        let bridge = soon(bridge).await.unwrap();
        for model in MODELS {
            let outcome = soon(bridge.chat(ChatRequest::new(model).user("hi"))).await;
            if model.starts_with("anthropic") {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), &ErrorKind::Authentication);
                assert!(error.message().contains("it is locked"), "{error}");
            }
        }
        let _ = soon(bridge.embed(EmbedRequest::new("openai/text-embedding-3-small", ["a"]))).await;
        let keys = upstream.keys.lock().unwrap().clone();
        assert!(keys.contains(&"key-of-openai-0123456789".to_owned()), "{keys:?}");
        assert!(keys.contains(&"key-of-gemini-0123456789".to_owned()), "{keys:?}");
        assert_eq!(*requested.lock().unwrap(), ["openai", "anthropic", "gemini"]); // the key of openai is cached for `embed`
        soon(bridge.shutdown()).await;
    }
}
