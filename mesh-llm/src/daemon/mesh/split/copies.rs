//! Waits until machines that are to compute with this one have the model's file: each reads its layers from its own copy.

use super::group::Wanted;
use crate::mesh::wire::{Fetch, Fetching, Open};
use crate::mesh::{Mesh, readable};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A worker that says nothing for so long will not: as long as a download gets on, it says so.
const SILENT_FOR: Duration = Duration::from_secs(90);

/// What a machine says of its copy.
enum News {
    UnderWay(Option<u8>),
    Over,
}

/// Has those of the workers download the model that do not have it, all at once, and waits until each has it or cannot have
/// it: that one is sent its layers. `tell` is told who downloads, and the percent of the one that is least far. Dropping it
/// ends the downloads.
pub(in crate::daemon) async fn have_copies(
    mesh: &Mesh,
    fetch: Fetch,
    workers: &[Wanted],
    mut tell: impl FnMut(Vec<String>, Option<u8>),
) {
    let (news, mut told) = mpsc::channel(workers.len().max(1));
    let mut asking = JoinSet::new();
    for (index, worker) in workers.iter().enumerate() {
        let (mesh, task) = (mesh.clone(), Open::Fetch(Box::new(fetch.clone())));
        asking.spawn(ask(mesh, worker.clone(), task, index, news.clone()));
    }
    drop(news);
    let mut under_way = BTreeMap::new();
    while let Some((index, news)) = told.recv().await {
        match news {
            News::UnderWay(percent) => {
                under_way.insert(index, percent);
            }
            News::Over => {
                under_way.remove(&index);
            }
        }
        if !under_way.is_empty() {
            let labels = under_way.keys().map(|index| workers[*index].label.clone());
            // What is not known is least.
            tell(labels.collect(), under_way.values().min().copied().flatten());
        }
    }
}

async fn ask(mesh: Mesh, worker: Wanted, task: Open, index: usize, news: mpsc::Sender<(usize, News)>) {
    let failed = follow(&mesh, &worker, &task, index, &news).await.err();
    if let Some(cause) = failed {
        tracing::warn!(
            worker = worker.label,
            cause,
            "it has no copy of the model, and is sent its layers at each start: copy the file into one of its folders of \
             models"
        );
    }
    // Nobody may listen any more.
    let _ = news.send((index, News::Over)).await;
}

/// Follows what a worker says, until it has the file.
async fn follow(
    mesh: &Mesh,
    worker: &Wanted,
    task: &Open,
    index: usize,
    news: &mpsc::Sender<(usize, News)>,
) -> Result<(), String> {
    let opened = mesh.open(worker.node, task).await;
    let mut stream = opened.map_err(|error| error.to_string())?;
    loop {
        let said = timeout(SILENT_FOR, stream.hear::<Fetching>()).await;
        match said.map_err(|_| "it says nothing any more".to_owned())? {
            Ok(Fetching::Here) => return Ok(()),
            Ok(Fetching::UnderWay { percent }) => {
                let percent = percent.map(|percent| percent.min(100));
                if news.send((index, News::UnderWay(percent))).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Fetching::Failed { message }) => return Err(readable(&message)),
            // A release that knows nothing of copies lets the stream end.
            Err(error) => return Err(error.to_string()),
        }
    }
}
