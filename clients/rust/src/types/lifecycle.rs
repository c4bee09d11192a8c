//! A worker's description of itself.

use serde::{Deserialize, Serialize};

use super::Object;

/// A worker's response to the handshake.
///
/// ```
/// use omni_bridge_client::mock::Mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().spawn().await?;
/// let worker = &bridge.workers()[0].initialize_result;
/// assert_eq!(worker.protocol_version, "omni-bridge/1");
/// assert!(worker.engine.ready && worker.capabilities.is_empty());
/// # Ok(())
/// # }
/// ```
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
///
/// ```
/// use omni_bridge_client::mock::Mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().spawn().await?;
/// let worker = &bridge.workers()[0].initialize_result;
/// println!("{} {}", worker.server_info.name, worker.server_info.version);
/// assert_eq!(worker.server_info.name, "mock"); // of a real worker: omni-bridge
/// # Ok(())
/// # }
/// ```
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
///
/// ```
/// use omni_bridge_client::mock::Mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().spawn().await?;
/// let worker = &bridge.workers()[0].initialize_result;
/// assert_eq!(worker.limits.max_message_bytes, 64 << 20);
/// assert!(worker.limits.max_in_flight > 0);
/// # Ok(())
/// # }
/// ```
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
///
/// ```
/// use omni_bridge_client::mock::Mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Mock::new().spawn().await?;
/// let worker = &bridge.workers()[0].initialize_result;
/// assert!(worker.engine.ready);
/// assert_eq!((worker.engine.name.as_str(), &worker.engine.version), ("mock", &None)); // of a real worker: litellm
/// # Ok(())
/// # }
/// ```
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
