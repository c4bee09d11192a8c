//! The bridge in a host's own configuration, in each format that hosts use.

mod common;

use common::soon;
use omni_bridge_client::{ChatRequest, Deadlines, ErrorKind, LlmBackend, LlmConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct AgentConfig {
    name: String,
    #[serde(flatten)]
    llm: LlmConfig,
}

const TOML: &str = r#"
name = "reviewer"
llm = "bridge"
model = "openai/gpt-4o-mini"

[bridge]
command = "/opt/agent/omni-bridge"
args = ["--max-in-flight", "8"]
config = "gateway.yaml"
env = { OPENAI_BASE_URL = "https://llm.example.com/v1" }
workers = 2
recycle_above_mb = 800
deadlines = { total_ms = 120000, idle_ms = 30000 }
"#;

const YAML: &str = r#"
name: reviewer
llm: bridge
model: openai/gpt-4o-mini
bridge:
  command: /opt/agent/omni-bridge
  args: [--max-in-flight, "8"]
  config: gateway.yaml
  env:
    OPENAI_BASE_URL: https://llm.example.com/v1
  workers: 2
  recycle_above_mb: 800
  deadlines: {total_ms: 120000, idle_ms: 30000}
"#;

#[test]
fn toml_and_yaml_say_the_same() {
    let toml: AgentConfig = toml::from_str(TOML).unwrap();
    let yaml: AgentConfig = serde_saphyr::from_str(YAML).unwrap();
    assert_eq!((toml.name.as_str(), yaml.name.as_str()), ("reviewer", "reviewer"));
    assert_eq!(toml.llm, yaml.llm);
    let bridge = toml.llm.bridge;
    assert_eq!((bridge.workers, bridge.args.len(), bridge.recycle_above_mb), (Some(2), 2, Some(800)));
    assert_eq!(bridge.deadlines, Some(Deadlines { total_ms: Some(120_000), first_token_ms: None, idle_ms: Some(30_000) }));
    assert_eq!(bridge.env["OPENAI_BASE_URL"], "https://llm.example.com/v1");
}

#[test]
fn without_a_word_about_it_it_is_the_bridge_with_its_defaults() {
    let config: AgentConfig = toml::from_str("name = 'a'").unwrap();
    assert_eq!(config.llm, LlmConfig::default());
    assert_eq!(config.llm.backend, LlmBackend::Bridge);
}

#[test]
fn another_client_of_the_hosts_own_is_kept_by_name() {
    let config: AgentConfig = toml::from_str("name = 'a'\nllm = 'openai'").unwrap();
    assert_eq!(config.llm.backend, LlmBackend::Other("openai".into()));
}

#[test]
fn a_misspelt_setting_is_an_error_that_names_it() {
    for wrong in ["[bridge]\nworker = 2", "[bridge.deadlines]\ntotal = 5"] {
        let error = toml::from_str::<LlmConfig>(wrong).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn a_config_is_written_as_it_is_read() {
    let config: LlmConfig = toml::from_str(TOML.trim_start().trim_start_matches("name = \"reviewer\"")).unwrap();
    assert_eq!(serde_json::from_value::<LlmConfig>(serde_json::to_value(&config).unwrap()).unwrap(), config);
}

#[tokio::test]
async fn a_config_starts_a_bridge() {
    let mut config: LlmConfig = toml::from_str("model = 'offline/echo'\n[bridge]\nlog_level = 'error'").unwrap();
    config.bridge.command = Some(common::worker_command());
    let bridge = soon(config.bridge.spawn()).await.unwrap();
    let model = config.model.unwrap();
    assert_eq!(soon(bridge.chat(ChatRequest::new(model).user("hi"))).await.unwrap().text(), "hi");
    soon(bridge.shutdown()).await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_an_error_of_its_own() {
    let config: LlmConfig = toml::from_str("[bridge]\ncommand = 'no-such-omni-bridge'").unwrap();
    assert_eq!(config.bridge.spawn().await.unwrap_err().kind(), &ErrorKind::WorkerNotFound);
}
