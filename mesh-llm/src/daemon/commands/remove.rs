//! Removes a model from the store.

use super::super::report::Reporter;
use super::{Error, size};
use crate::exit::Exit;
use crate::models::library::{Library, is_ours};
use crate::models::scan::parts;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

/// Removes what the words refer to; with `asks`, after a yes.
pub(super) fn remove(library: &Library, words: &str, asks: bool, reporter: &Reporter) -> Result<Exit, Error> {
    let model = library.on_disk(words)?;
    let name = &model.found.name;
    if !is_ours(&model, library.places.store.as_deref()) {
        return Err(Error::NotOurs {
            name: name.clone(),
            keeper: model.found.keeper.to_string(),
            path: model.found.path.display().to_string(),
        });
    }
    // Those of a model that lacks some, too. The first goes last: without it nothing lists the others.
    let files = parts(&model.found.path);
    if asks && !may_go(&model.found.path, model.bytes(), files.len())? {
        reporter.note(&format!("{name} stays"));
        return Ok(Exit::DONE);
    }
    for path in &files {
        fs::remove_file(path).map_err(|cause| Error::NotRemoved {
            path: path.display().to_string(),
            cause,
        })?;
    }
    reporter.note(&format!(
        "{name} is removed, {} are free again",
        size(model.bytes())
    ));
    Ok(Exit::DONE)
}

fn may_go(path: &Path, bytes: u64, files: usize) -> Result<bool, Error> {
    let name = path.display();
    if !io::stdin().is_terminal() {
        return Err(Error::NobodyToAsk {
            name: name.to_string(),
        });
    }
    let files = match files {
        1 => String::new(),
        files => format!(" in {files} files"),
    };
    let mut answer = String::new();
    let asked = write!(io::stderr(), "remove {name}, {}{files}? [y/N] ", size(bytes));
    asked
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|cause| Error::Unexpected {
            doing: "asking",
            cause,
        })?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
