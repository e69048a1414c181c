//! Fetches a model into the store.

use super::super::download::model_with;
use super::super::report::Reporter;
use super::super::signals::Signals;
use super::Error;
use crate::exit::Exit;
use crate::models::catalog::Entry;
use crate::models::library::{Library, Missing, Resolved};

/// Fetches what the words refer to, where it is not here already.
pub(super) fn download(
    library: &Library,
    words: &str,
    draft: bool,
    reporter: &Reporter,
) -> Result<Exit, Error> {
    // The draft is looked for first: nobody wants to hear after an hour that there is none.
    let draft = draft.then(|| draft_of(library, words)).transpose()?;
    let mut wanted = vec![words];
    wanted.extend(draft);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::Unexpected {
            doing: "starting threads",
            cause,
        })?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|cause| Error::Unexpected {
            doing: "listening for signals",
            cause,
        })?;
        tokio::select! {
            done = all(library, &wanted, reporter) => done,
            () = signals.next() => {
                reporter.note("stopped: the same command goes on where this one was");
                Ok(Exit::STOPPED)
            }
        }
    })
}

async fn all(library: &Library, wanted: &[&str], reporter: &Reporter) -> Result<Exit, Error> {
    for words in wanted {
        match library.resolve_to_download(words)? {
            Resolved::Here(model) => {
                reporter.note(&format!(
                    "{} is there already: {}",
                    model.id,
                    model.path.display()
                ));
            }
            Resolved::Missing(missing) => {
                model_with(library, &missing, reporter, |_| {}).await?;
            }
        }
    }
    Ok(Exit::DONE)
}

/// The name of the draft that the catalog has for a model.
fn draft_of<'a>(library: &'a Library, words: &str) -> Result<&'a str, Error> {
    let found = library.catalog.find(words);
    let known = match library.resolve_to_download(words)? {
        Resolved::Missing(Missing::Known(entry)) => library.catalog.entry(&entry.name),
        _ => match found.as_slice() {
            [one] => Some(*one),
            _ => None,
        },
    };
    let draft = |entry: &'a Entry| entry.draft.as_deref();
    known.and_then(draft).ok_or_else(|| Error::NoDraft {
        name: words.to_owned(),
    })
}
