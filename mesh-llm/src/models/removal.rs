//! What may be removed of the store: models, and downloads that did not come to their end.

use super::download::{Unfinished, unfinished};
use super::error::{Error, Names};
use super::inventory::OnDisk;
use super::library::{Library, is_ours};
use super::{file, spelling};
use std::path::Path;

/// What words for something to remove refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removable {
    /// A model, and unfinished downloads of further parts of it.
    Model(Box<OnDisk>, Vec<Unfinished>),
    /// Unfinished downloads of one model.
    Downloads(Vec<Unfinished>),
}

/// What has a name.
#[derive(Debug, Clone)]
enum Named {
    Model(Box<OnDisk>),
    Download(String, Unfinished),
}

impl Named {
    fn name(&self) -> &str {
        match self {
            Named::Model(model) => &model.found.name,
            Named::Download(name, _) => name,
        }
    }

    fn path(&self) -> &Path {
        match self {
            Named::Model(model) => &model.found.path,
            Named::Download(_, download) => &download.part,
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        self.path() == path || matches!(self, Named::Download(_, download) if download.target == path)
    }
}

/// What the model is called that a download is of.
pub fn name_of(download: &Unfinished) -> String {
    file::id(&file::stem(&download.target)).to_owned()
}

impl Library {
    /// The downloads into the store that have not come to their end.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.places.store.as_deref().map(unfinished).unwrap_or_default()
    }

    /// Finds what is to be removed, by its name or the path of its file.
    ///
    /// # Errors
    /// Where nothing has such a name, or several things have.
    pub fn removable(&self, words: &str) -> Result<Removable, Error> {
        let models = self.inventory().into_iter().map(Box::new).map(Named::Model);
        let downloads = self.unfinished().into_iter();
        let all: Vec<Named> = models
            .chain(downloads.map(|download| Named::Download(name_of(&download), download)))
            .collect();
        let by_path: Vec<&Named> = all.iter().filter(|named| named.is_at(Path::new(words))).collect();
        let meant = match by_path.is_empty() {
            true => spelling::best(words, &all, |named| named.name()),
            false => by_path,
        };
        let store = self.places.store.as_deref();
        pick(&meant, store).ok_or_else(|| match meant.as_slice() {
            [] => Error::NotOnDisk {
                name: words.to_owned(),
                there: Names(all.iter().map(|named| named.name().to_owned()).collect()),
            },
            // Of one name, too: what is removed must be what is meant.
            several => Error::Ambiguous {
                name: words.to_owned(),
                models: Names(
                    several
                        .iter()
                        .map(|named| named.path().display().to_string())
                        .collect(),
                ),
            },
        })
    }
}

/// All of it together, if it is one model: what else has its name is another one, unless it is a further
/// part that is on its way to the same folder.
fn pick(meant: &[&Named], store: Option<&Path>) -> Option<Removable> {
    let name = meant.first()?.name();
    let (mut models, mut downloads) = (Vec::new(), Vec::new());
    for named in meant.iter().filter(|named| named.name() == name) {
        match named {
            Named::Model(model) => models.push(model.clone()),
            Named::Download(_, download) => downloads.push(download.clone()),
        }
    }
    let all = models.len() + downloads.len() == meant.len();
    match models.as_slice() {
        [] if all => Some(Removable::Downloads(downloads)),
        [model] if all && (downloads.is_empty() || is_ours(model, store)) => {
            Some(Removable::Model(model.clone(), downloads))
        }
        _ => None,
    }
}
