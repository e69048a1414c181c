//! Where other machines get a model that is on this one.

use super::file;
use super::library::Library;
use super::places::Keeper;
use super::reference::{MAIN, Pick, Reference, Repository};
use super::scan::{self, Found};
use std::path::Path;

/// Where a copy of a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The repository, and its file there.
    pub repository: Repository,
    /// Bytes of all its files: another model may have the name, too.
    pub bytes: u64,
}

impl Library {
    /// Where another machine gets the model of this file, of a split model the first part; none where that is not known.
    pub fn origin(&self, path: &Path) -> Option<Origin> {
        let path = std::path::absolute(path).ok()?;
        let models = self.inventory();
        let found = models.iter().find(|model| model.found.path == path);
        let repository = found
            .and_then(|model| of_found(&model.found))
            .or_else(|| self.in_catalog(&path))?;
        let parts = scan::parts(&path).into_iter();
        let bytes = parts.map(|part| part.metadata().map_or(0, |metadata| metadata.len()));
        Some(Origin {
            repository,
            bytes: bytes.sum(),
        })
    }

    /// Where the catalog has a file of that name.
    fn in_catalog(&self, path: &Path) -> Option<Repository> {
        let source = self.entry_of_file(path)?.source.as_ref()?;
        Some(Repository {
            name: source.repository.clone(),
            revision: MAIN.to_owned(),
            pick: Pick::File(source.files.first()?.clone()),
        })
    }

    /// Whether a model is on this machine that is called so, or whose file is, and has as many bytes.
    pub fn has_copy(&self, model: &str, origin: &Origin) -> bool {
        let file = file_name(&origin.repository);
        let is_it = |found: &Found| {
            let name = found.path.file_name().and_then(|name| name.to_str());
            found.name == model || (file.is_some() && name == file)
        };
        let models = self.inventory();
        let mut sound = models.iter().filter(|model| model.about.is_ok());
        sound.any(|model| is_it(&model.found) && model.bytes() == origin.bytes)
    }

    /// Whether a model that is called so at the API may be that of this file.
    pub fn may_be(&self, model: &str, repository: &Repository) -> bool {
        let Some(file) = file_name(repository) else {
            return false;
        };
        let entry = self.entry_of_file(Path::new(file));
        file::id(&file::stem(Path::new(file))) == model || entry.is_some_and(|entry| entry.name == model)
    }
}

/// The name of the file that is meant in a repository, if it is named.
fn file_name(repository: &Repository) -> Option<&str> {
    match &repository.pick {
        Pick::File(file) => file.rsplit('/').next(),
        Pick::Usual | Pick::Quantization(_) => None,
    }
}

/// Where a file came from, as its place or this program's memory says.
fn of_found(found: &Found) -> Option<Repository> {
    let file = match found.keeper {
        Keeper::HuggingFace => in_snapshot(&found.path)?,
        // Downloads are flat.
        _ => found.path.file_name()?.to_str()?.to_owned(),
    };
    let words = format!("{}/{file}", found.repository.as_ref()?);
    match Reference::read(&words, |_| false) {
        Reference::Repository(repository) => Some(repository),
        // It came from an address of its own.
        _ => None,
    }
}

/// A file's path in its repository, from that in the cache: `models--org--repo/snapshots/commit/…`.
fn in_snapshot(path: &Path) -> Option<String> {
    let mut parts = path.iter().map(|part| part.to_str());
    parts.find(|part| *part == Some("snapshots"))?;
    let inside: Option<Vec<&str>> = parts.skip(1).collect();
    inside.map(|inside| inside.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn found(path: &str, keeper: Keeper, repository: Option<&str>) -> Found {
        Found {
            path: path.into(),
            name: "x".to_owned(),
            keeper,
            repository: repository.map(str::to_owned),
            bytes: 4,
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_was_downloaded_can_be_had_where_it_came_from() {
        let cached = "/hub/models--org--repo/snapshots/abc/Q4/x.gguf";
        for (path, keeper, repository, words) in [
            (
                "/m/x.gguf",
                Keeper::Store,
                Some("org/repo"),
                Some("org/repo/x.gguf"),
            ),
            (
                "/m/x.gguf",
                Keeper::Store,
                Some("org/repo@v2"),
                Some("org/repo@v2/x.gguf"),
            ),
            (
                cached,
                Keeper::HuggingFace,
                Some("org/repo"),
                Some("org/repo/Q4/x.gguf"),
            ),
            ("/m/x.gguf", Keeper::Store, Some("https://a.b/x.gguf"), None),
            ("/m/x.gguf", Keeper::Store, None, None),
            ("/o/blobs/sha256-0a", Keeper::Ollama, None, None),
        ] {
            let repository = of_found(&found(path, keeper, repository));
            assert_eq!(
                repository.map(|repository| repository.to_string()).as_deref(),
                words,
                "{path}"
            );
        }
    }
}
