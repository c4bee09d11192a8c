//! A thousand prompts, thirty-two at once, with a progress bar: `cargo run --example batch`, with a model's name behind `--` for a
//! real one.

use indicatif::ProgressBar;
use omni_bridge_client::{Bridge, ChatRequest, Error, RetryPolicy};
use tokio::task::JoinSet;

const AT_ONCE: usize = 32;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "offline/echo".into());
    let bridge = Bridge::builder().retry(RetryPolicy::new(5)).spawn().await?;
    let prompts: Vec<String> = (0..1000).map(|number| format!("prompt number {number}")).collect();
    let bar = ProgressBar::new(prompts.len() as u64);
    let results = run(&bridge, &model, prompts, &bar).await;
    bar.finish();
    let failed = results.iter().filter(|result| result.is_err()).count();
    println!("{} done, {failed} failed", results.len() - failed);
    bridge.shutdown().await;
    Ok(())
}

/// The responses in the order of the prompts.
pub async fn run(bridge: &Bridge, model: &str, prompts: Vec<String>, bar: &ProgressBar) -> Vec<Result<String, Error>> {
    let mut results: Vec<_> = prompts.iter().map(|_| None).collect();
    let mut waiting = prompts.into_iter().enumerate();
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE {
            let Some((index, prompt)) = waiting.next() else { break };
            let (bridge, request) = (bridge.clone(), ChatRequest::new(model).user(prompt));
            running.spawn(async move { (index, bridge.chat(request).await.map(|response| response.text().to_owned())) });
        }
        let Some(done) = running.join_next().await else { break };
        if let Ok((index, result)) = done {
            results[index] = Some(result);
            bar.inc(1);
        }
    }
    results.into_iter().flatten().collect()
}
