//! Downloads one file as the daemon would, and says how fast: `fetch URL FOLDER`, or
//! `fetch REPO FILE FOLDER [REVISION]`. Reads `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`.

use mesh_llm::models::download::{Progress, Settings, Source, fetch};
use std::path::Path;
use std::time::Instant;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (source, folder) = match words[..] {
        [url, folder] => (Source::Url(url.to_owned()), folder),
        [repo, file, folder] => (of_hub(repo, file, "main"), folder),
        [repo, file, folder, revision] => (of_hub(repo, file, revision), folder),
        _ => anyhow::bail!("usage: fetch URL FOLDER, or fetch REPO FILE FOLDER [REVISION]"),
    };
    let name = match &source {
        Source::Url(url) => url.rsplit('/').next().unwrap_or(url),
        Source::HuggingFace { file, .. } => file,
    };
    let settings = Settings::from_env(&|name| std::env::var_os(name));
    let (progress, _) = watch::channel(Progress::default());
    let start = Instant::now();
    let path = fetch(&settings, &source, Path::new(folder), name, progress)
        .await?
        .path;
    let (seconds, bytes) = (start.elapsed().as_secs_f64(), path.metadata()?.len());
    println!(
        "{}: {bytes} bytes, {:.0} MB/s",
        path.display(),
        bytes as f64 / seconds / 1e6
    );
    Ok(())
}

fn of_hub(repo: &str, file: &str, revision: &str) -> Source {
    Source::HuggingFace {
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        file: file.to_owned(),
    }
}
