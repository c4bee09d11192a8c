//! The keys stay with the agent. `cargo run --example credentials -- openai/gpt-4o-mini` reads one from the terminal when it is needed.
use std::io::{Write, stdin, stdout};
use std::time::Duration;

use omni_bridge_client::{Bridge, ChatRequest, Credential, CredentialRequest, Result};

/// A keychain or a vault in an agent; here it is the user.
fn from_the_user(request: &CredentialRequest) -> std::io::Result<Credential> {
    print!("key of {}: ", request.provider);
    stdout().flush()?;
    let mut key = String::new();
    stdin().read_line(&mut key)?;
    Ok(Credential::api_key(key.trim()).expires_in(Duration::from_secs(600)))
}

#[tokio::main]
async fn main() -> Result<()> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "offline/echo".into());
    let bridge = Bridge::builder()
        .credentials(|request| async move { tokio::task::spawn_blocking(move || from_the_user(&request)).await? })
        .credentials_timeout(Duration::from_secs(120))
        .spawn()
        .await?;
    let response = bridge.chat(ChatRequest::new(model).user("hello")).await?;
    println!("{}", response.text());
    bridge.shutdown().await;
    Ok(())
}
