//! The bridge in a host's own configuration.
//!
//! Owns the names of its settings. Refuses to know the file's format: the types are serde's, so TOML, YAML and JSON read alike.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bridge::Bridge;
use crate::builder::BridgeBuilder;
use crate::error::Result;
use crate::supervisor::Recycling;
use crate::types::Deadlines;

/// Which client a host's agent uses for its models; flatten it into the host's own configuration.
///
/// ```
/// use omni_bridge_client::{LlmBackend, LlmConfig};
///
/// #[derive(serde::Deserialize)]
/// struct AgentConfig {
///     name: String,
///     #[serde(flatten)]
///     llm: LlmConfig,
/// }
///
/// let config: AgentConfig = toml::from_str(r#"
///     name = "reviewer"
///     llm = "bridge"
///     model = "openai/gpt-4o-mini"
///
///     [bridge]
///     config = "gateway.yaml"
///     workers = 2
///     env = { OPENAI_BASE_URL = "https://llm.example.com/v1" }
///     deadlines = { total_ms = 120000 }
/// "#)?;
/// assert_eq!(config.llm.backend, LlmBackend::Bridge);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LlmConfig {
    /// `llm = "bridge"`, or a client of the host's own.
    #[serde(rename = "llm", default)]
    pub backend: LlmBackend,
    /// The model to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How to start the bridge.
    #[serde(default)]
    pub bridge: BridgeConfig,
}

/// A client for language models.
///
/// ```
/// use omni_bridge_client::{LlmBackend, LlmConfig};
///
/// let config: LlmConfig = serde_json::from_str(r#"{"llm": "ollama-rs", "model": "qwen3"}"#).unwrap();
/// assert_eq!(config.backend, LlmBackend::Other("ollama-rs".into()));
/// assert_eq!(LlmConfig::default().backend, LlmBackend::Bridge);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LlmBackend {
    /// This crate.
    #[default]
    Bridge,
    /// One that the host knows.
    Other(String),
}

impl From<String> for LlmBackend {
    fn from(name: String) -> Self {
        if name == "bridge" { LlmBackend::Bridge } else { LlmBackend::Other(name) }
    }
}

impl From<LlmBackend> for String {
    fn from(backend: LlmBackend) -> Self {
        match backend {
            LlmBackend::Bridge => "bridge".to_owned(),
            LlmBackend::Other(name) => name,
        }
    }
}

/// The settings under `[bridge]`. Each is a method of [`BridgeBuilder`]; a misspelt one is an error.
///
/// ```
/// use omni_bridge_client::BridgeConfig;
///
/// let config: BridgeConfig = serde_json::from_str(r#"{"config": "gateway.yaml", "workers": 2}"#).unwrap();
/// let builder = config.builder().env("OPENAI_API_KEY", "sk-..."); // further settings in code
/// assert!(!format!("{builder:?}").contains("sk-"));
/// assert!(serde_json::from_str::<BridgeConfig>(r#"{"worker": 2}"#).is_err());
/// ```
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// The program; see [`BridgeBuilder::command`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<PathBuf>,
    /// Its arguments, before those that this crate adds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// A LiteLLM gateway's `config.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// What is added to the worker's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What the worker logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// How many processes; one unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Deadlines of chats without deadlines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// How long a worker may take to start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout_ms: Option<u64>,
    /// What a shutdown leaves to the calls in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_grace_ms: Option<u64>,
    /// A worker with more resident memory is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recycle_above_mb: Option<u64>,
}

impl BridgeConfig {
    /// The same settings, open to changes in code.
    pub fn builder(&self) -> BridgeBuilder {
        let mut builder = Bridge::builder().args(&self.args).envs(&self.env);
        if let Some(command) = &self.command {
            builder = builder.command(command);
        }
        if let Some(config) = &self.config {
            builder = builder.config(config);
        }
        if let Some(level) = &self.log_level {
            builder = builder.log_level(level.as_str());
        }
        if let Some(workers) = self.workers {
            builder = builder.workers(workers);
        }
        if let Some(deadlines) = self.deadlines {
            builder = builder.deadlines(deadlines);
        }
        if let Some(limit) = self.start_timeout_ms {
            builder = builder.start_timeout(Duration::from_millis(limit));
        }
        if let Some(grace) = self.shutdown_grace_ms {
            builder = builder.shutdown_grace(Duration::from_millis(grace));
        }
        if let Some(megabytes) = self.recycle_above_mb {
            builder = builder.recycling(Recycling::above(megabytes.saturating_mul(1024 * 1024)));
        }
        builder
    }

    /// Starts the bridge.
    pub async fn spawn(&self) -> Result<Bridge> {
        self.builder().spawn().await
    }
}

/// Names of environment variables, not their values: these are keys.
impl fmt::Debug for BridgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BridgeConfig { command, args, config, env, log_level, workers, deadlines, .. } = self;
        let names: Vec<_> = env.keys().collect();
        f.debug_struct("BridgeConfig")
            .field("command", command)
            .field("args", args)
            .field("config", config)
            .field("env", &names)
            .field("log_level", log_level)
            .field("workers", workers)
            .field("deadlines", deadlines)
            .finish_non_exhaustive()
    }
}
