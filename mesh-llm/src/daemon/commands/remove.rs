//! Removes a model from the store, or what there is of one that is not downloaded to its end.

use super::super::report::Reporter;
use super::ask::{AskError, ask};
use super::{Error, size};
use crate::exit::Exit;
use crate::models::download::{Unfinished, discard};
use crate::models::inventory::OnDisk;
use crate::models::library::{Library, is_ours};
use crate::models::removal::{Removable, name_of};
use crate::models::scan::parts;
use std::fs;
use std::path::{Path, PathBuf};

/// What goes together.
struct Removal {
    name: String,
    /// What it is called by when its user is asked.
    path: PathBuf,
    files: Vec<PathBuf>,
    downloads: Vec<Unfinished>,
    bytes: u64,
}

/// Removes what the words refer to; with `asks`, after a yes.
pub(super) fn remove(library: &Library, words: &str, asks: bool, reporter: &Reporter) -> Result<Exit, Error> {
    let removal = match library.removable(words)? {
        Removable::Model(model, downloads) => of_model(&model, downloads, library.places.store.as_deref())?,
        Removable::Downloads(downloads) => of_downloads(downloads),
    };
    let name = &removal.name;
    if removal.downloads.iter().any(|download| download.is_running) {
        return Err(Error::Running { name: name.clone() });
    }
    let count = removal.files.len() + removal.downloads.len();
    if asks && !may_go(&removal.path, removal.bytes, count)? {
        reporter.note(&format!("{name} stays"));
        return Ok(Exit::DONE);
    }
    // First what may be refused, as a process may have begun with it meanwhile.
    for download in &removal.downloads {
        if !discard(&download.target).map_err(crate::models::fetch::Error::from)? {
            return Err(Error::Running { name: name.clone() });
        }
    }
    for path in &removal.files {
        fs::remove_file(path).map_err(|cause| Error::NotRemoved {
            path: path.display().to_string(),
            cause,
        })?;
    }
    let bytes = size(removal.bytes);
    reporter.note(&format!("{name} is removed, {bytes} are free again"));
    Ok(Exit::DONE)
}

fn of_model(model: &OnDisk, downloads: Vec<Unfinished>, store: Option<&Path>) -> Result<Removal, Error> {
    if !is_ours(model, store) {
        return Err(Error::NotOurs {
            name: model.found.name.clone(),
            keeper: model.found.keeper.to_string(),
            path: model.found.path.display().to_string(),
        });
    }
    Ok(Removal {
        name: model.found.name.clone(),
        path: model.found.path.clone(),
        // Those of a model that lacks some, too. The first goes last: without it nothing lists the others.
        files: parts(&model.found.path),
        bytes: model.bytes() + taken(&downloads),
        downloads,
    })
}

fn of_downloads(downloads: Vec<Unfinished>) -> Removal {
    let first = downloads.first();
    Removal {
        name: first.map(name_of).unwrap_or_default(),
        path: first.map(|download| download.part.clone()).unwrap_or_default(),
        files: Vec::new(),
        bytes: taken(&downloads),
        downloads,
    }
}

fn taken(downloads: &[Unfinished]) -> u64 {
    downloads.iter().map(|download| download.taken_bytes).sum()
}

fn may_go(path: &Path, bytes: u64, files: usize) -> Result<bool, AskError> {
    let files = match files {
        1 => String::new(),
        files => format!(" in {files} files"),
    };
    ask(&format!("remove {}, {}{files}?", path.display(), size(bytes)))
}
