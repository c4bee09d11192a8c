//! Keys that the host has: what the worker requests, and what the host returns.
//!
//! Owns both types and the running of the host's closure. Refuses to keep a key.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::task::AbortHandle;

use crate::call::lock;
use crate::io::Io;

/// What the worker needs a key for.
///
/// ```
/// use omni_bridge_client::CredentialRequest;
///
/// fn name_in_the_keychain(request: &CredentialRequest) -> String {
///     format!("my-agent/{}", request.provider)
/// }
/// ```
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialRequest {
    /// LiteLLM's name of it, such as `openai` or `anthropic`.
    pub provider: String,
    /// `missing`, or `rejected`: the provider has rejected the last key.
    pub reason: String,
    /// The operator's host that gets the key, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
}

impl CredentialRequest {
    /// Whether the provider has rejected the key that was returned last.
    #[must_use]
    pub fn was_rejected(&self) -> bool {
        self.reason == "rejected"
    }
}

/// A key. Its `Debug` does not show it.
///
/// ```
/// use std::time::Duration;
/// use omni_bridge_client::Credential;
///
/// let of_a_vault = Credential::api_key("sk-...").expires_in(Duration::from_secs(600));
/// let of_aws = Credential::aws("AKIA...", "secret").with("aws_region_name", "eu-central-1");
/// let of_a_host_without_keys = Credential::none();
/// ```
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Credential(Map<String, Value>);

impl Credential {
    /// The key of most providers. The worker keeps it for five minutes, unless [`expires_in`](Credential::expires_in) is set.
    #[must_use]
    pub fn api_key(key: impl Into<String>) -> Self {
        Credential(Map::new()).with("api_key", key)
    }

    /// This host needs no key.
    #[must_use]
    pub fn none() -> Self {
        Credential(Map::from_iter([("api_key".to_owned(), Value::Null)]))
    }

    /// The access key of AWS.
    #[must_use]
    pub fn aws(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Credential(Map::new()).with("aws_access_key_id", access_key_id).with("aws_secret_access_key", secret_access_key)
    }

    /// The JSON of a service account of Google's.
    #[must_use]
    pub fn vertex(service_account: impl Into<String>) -> Self {
        Credential(Map::new()).with("vertex_credentials", service_account)
    }

    /// One more member, such as `base_url`, `aws_session_token` or `vertex_project`; the protocol lists them.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), Value::from(value.into()));
        self
    }

    /// How long the worker may keep it; zero is for the waiting requests only.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.0.insert("expires_in_seconds".to_owned(), Value::from(time.as_secs_f64()));
        self
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("members", &self.0.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

pub(crate) type Outcome = Pin<Box<dyn Future<Output = Result<Credential, String>> + Send>>;

/// The host's closure, and what it declares to the worker.
#[derive(Clone)]
pub(crate) struct Credentials {
    get: Arc<dyn Fn(CredentialRequest) -> Outcome + Send + Sync>,
    providers: Option<Vec<String>>,
    timeout: Option<Duration>,
}

impl Credentials {
    pub(crate) fn new<F, Fut, E>(get: F) -> Self
    where
        F: Fn(CredentialRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credential, E>> + Send + 'static,
        E: fmt::Display,
    {
        let get = move |request: CredentialRequest| -> Outcome {
            let outcome = get(request);
            Box::pin(async move { outcome.await.map_err(|error| error.to_string()) })
        };
        Credentials { get: Arc::new(get), providers: None, timeout: None }
    }

    pub(crate) fn declaring(self, providers: Option<Vec<String>>, timeout: Option<Duration>) -> Self {
        Credentials { providers, timeout, ..self }
    }

    /// `capabilities.credentials` in the handshake.
    pub(crate) fn capability(&self) -> Value {
        let mut declared = Map::new();
        if let Some(providers) = &self.providers {
            declared.insert("providers".to_owned(), json!(providers));
        }
        if let Some(timeout) = self.timeout {
            declared.insert("timeout_ms".to_owned(), json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)));
        }
        Value::Object(declared)
    }
}

/// Requests of the worker's that the host's closure works on, by their ids.
pub(crate) struct Responder {
    credentials: Option<Credentials>,
    running: Arc<Mutex<HashMap<String, AbortHandle>>>,
}

impl Responder {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Responder { credentials, running: Arc::default() }
    }

    pub(crate) fn capabilities(&self) -> Value {
        self.credentials.as_ref().map_or_else(|| json!({}), |credentials| json!({"credentials": credentials.capability()}))
    }

    /// Works on a request of the worker's; `respond` writes the response's line. A panic of the closure is an error for the worker.
    pub(crate) fn begin(&self, io: &Io, id: String, method: &str, params: &str, respond: impl FnOnce(Vec<u8>) + Send + 'static) {
        let request = serde_json::from_str::<CredentialRequest>(params);
        let (Some(credentials), "credentials/get", Ok(request)) = (&self.credentials, method, request) else {
            return respond(response(&id, Err((-32601, "this client has no such method".to_owned()))));
        };
        let working = io.spawn((credentials.get)(request));
        lock(&self.running).insert(id.clone(), working.abort_handle());
        let running = Arc::clone(&self.running);
        io.spawn(async move {
            let outcome = match working.await {
                Err(error) if error.is_cancelled() => return,
                Err(_) => Err((-32603, "the client's closure panicked".to_owned())),
                Ok(outcome) => outcome.map_err(|reason| (-32000, reason)),
            };
            lock(&running).remove(&id);
            respond(response(&id, outcome));
        });
    }

    /// The worker does not wait for this any more.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(working) = lock(&self.running).remove(id) {
            working.abort();
        }
    }

    pub(crate) fn cancel_all(&self) {
        lock(&self.running).drain().for_each(|(_, working)| working.abort());
    }
}

/// A line. `id` is JSON.
fn response(id: &str, outcome: Result<Credential, (i64, String)>) -> Vec<u8> {
    let id: Value = serde_json::from_str(id).unwrap_or_default();
    let message = match outcome {
        Ok(credential) => json!({"jsonrpc": "2.0", "id": id, "result": credential}),
        Err((code, message)) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
    };
    format!("{message}\n").into_bytes()
}
