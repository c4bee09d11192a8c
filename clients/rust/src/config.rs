//! The bridge in a host's own configuration.
//!
//! Owns the names of its settings, and where `omni-bridge` is looked for. Refuses to know the file's format: the types are serde's,
//! so TOML, YAML and JSON read alike.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bridge::Bridge;
use crate::builder::Builder;
use crate::error::{Error, ErrorKind, Result};
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

/// The settings under `[bridge]`. Each is a method of [`Builder`]; a misspelt one is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// The program; see [`Builder::command`].
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
    /// Deadlines of the chats that have none of their own.
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
    pub fn builder(&self) -> Builder {
        let mut builder = Bridge::builder().args(&self.args).envs(&self.env);
        if let Some(command) = &self.command {
            builder = builder.command(command);
        }
        if let Some(config) = &self.config {
            builder = builder.config(config);
        }
        if let Some(level) = &self.log_level {
            builder = builder.log_level(level);
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

const COMMAND: &str = "omni-bridge";

/// A path is taken as it is; a bare name is looked for next to the running executable, then on `PATH`.
pub(crate) fn find_command(command: Option<&Path>) -> Result<PathBuf> {
    let command = command.unwrap_or(Path::new(COMMAND));
    if command.components().count() > 1 {
        return Ok(command.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    find(command, beside.as_deref(), std::env::split_paths(&path))
}

fn find(name: &Path, beside: Option<&Path>, path: impl Iterator<Item = PathBuf>) -> Result<PathBuf> {
    let file = name.with_extension(std::env::consts::EXE_EXTENSION);
    // The bundle is a folder of the same name with the program in it.
    let near = beside.into_iter().flat_map(|folder| [folder.join(&file), folder.join(name).join(&file)]);
    let found = near.chain(path.map(|folder| folder.join(&file))).find(|candidate| is_program(candidate));
    found.ok_or_else(|| {
        let beside = beside.map_or_else(String::new, |folder| format!("beside the executable (in {}), nor ", folder.display()));
        let said = format!("there is no {} {beside}on PATH; install it, or give its path", file.display());
        Error::new(ErrorKind::WorkerNotFound, said)
    })
}

fn is_program(file: &Path) -> bool {
    let Ok(data) = file.metadata() else { return false };
    #[cfg(unix)]
    let may_run = std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let may_run = true;
    data.is_file() && may_run
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let file = folder.join(COMMAND);
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn the_program_beside_the_executable_comes_before_the_one_on_path() {
        let root = std::env::temp_dir().join(format!("omni-bridge-client-{}", std::process::id()));
        let (beside, first, second) = (root.join("beside"), root.join("first"), root.join("second"));
        std::fs::create_dir_all(&beside).unwrap();
        let search = || find(Path::new(COMMAND), Some(&beside), [first.clone(), second.clone()].into_iter());

        let error = search().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::WorkerNotFound);
        assert!(error.message().contains("beside"), "{error}");
        let on_path = program(&second);
        std::fs::create_dir_all(first.join(COMMAND)).unwrap(); // a folder of that name is none
        assert_eq!(search().unwrap(), on_path);
        let bundle = program(&beside.join(COMMAND));
        assert_eq!(search().unwrap(), bundle);
        std::fs::remove_dir_all(beside.join(COMMAND)).unwrap();
        let near = program(&beside);
        assert_eq!(search().unwrap(), near);
        std::fs::set_permissions(&near, std::fs::Permissions::from_mode(0o644)).unwrap(); // a file that can't run is none
        assert_eq!(search().unwrap(), on_path);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        for path in ["./omni-bridge", "/opt/omni-bridge", "bin/omni-bridge"] {
            assert_eq!(find_command(Some(Path::new(path))).unwrap(), Path::new(path));
        }
    }
}
