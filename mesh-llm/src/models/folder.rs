//! The models in a user's folder.

use super::file;
use std::cmp::Reverse;
use std::path::{Path, PathBuf};

/// Entries that are looked at; a folder of models has fewer.
const MAX_ENTRIES: usize = 10_000;

/// Files that an error names.
const MAX_SIMILAR: usize = 5;

/// Every model's file in the folder, of split ones the first part, the newest first.
pub(super) fn models(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .take(MAX_ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| file::is_gguf(path) && serves(&file::stem(path)))
        .filter_map(|path| {
            let metadata = path.metadata().ok().filter(|metadata| metadata.is_file())?;
            Some((metadata.modified().ok(), path))
        })
        .collect();
    found.sort_by(|a, b| (Reverse(a.0), &a.1).cmp(&(Reverse(b.0), &b.1)));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Whether a file with this stem can be served: the eyes of a model are of no use alone.
fn serves(stem: &str) -> bool {
    file::part(stem).is_none_or(|part| part.number == 1) && !stem.to_lowercase().starts_with("mmproj")
}

/// Models whose name has much in common with `name`.
pub(super) fn similar(folder: &Path, name: &str) -> Vec<PathBuf> {
    let wanted = letters(name);
    let alike = |path: &PathBuf| {
        let known = letters(&file::stem(path));
        !wanted.is_empty() && (known.contains(&wanted) || wanted.contains(&known))
    };
    models(folder)
        .into_iter()
        .filter(alike)
        .take(MAX_SIMILAR)
        .collect()
}

/// What is left of a name without the characters that people write differently.
fn letters(name: &str) -> String {
    name.to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric())
        .collect()
}
