//! A worker's description of itself.

use serde::{Deserialize, Serialize};

use super::Object;

/// A worker's response to the handshake.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct InitializeResult {
    /// The version that is spoken.
    pub protocol_version: String,
    /// Who it is.
    #[serde(default)]
    pub server_info: ServerInfo,
    /// What it can beyond the ordinary.
    #[serde(default)]
    pub capabilities: Object,
    /// Its limits.
    #[serde(default)]
    pub limits: Limits,
    /// What does the work in it.
    #[serde(default)]
    pub engine: EngineState,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A worker's name and version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ServerInfo {
    /// `omni-bridge`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

/// A worker's limits. This crate keeps to them: a longer request fails here, and one too many waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Limits {
    /// Longest line that it reads.
    pub max_message_bytes: usize,
    /// Most requests at once.
    pub max_in_flight: usize,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_message_bytes: 64 * 1024 * 1024, max_in_flight: 256, extra: Object::new() }
    }
}

/// The engine inside a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EngineState {
    /// `litellm`.
    pub name: String,
    /// Its version, once it is known.
    pub version: Option<String>,
    /// Whether it is imported and warm. A chat that comes earlier waits for it.
    pub ready: bool,
    /// What a newer worker adds.
    #[serde(flatten)]
    pub extra: Object,
}
