//! Finds models in the folders that they may be in, without opening them.

use super::file;
use super::places::{Keeper, Places};
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Entries that are looked at in all; more are not a user's models.
const MAX_ENTRIES: usize = 100_000;

/// The longest manifest of Ollama that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// More is no commit's name.
const MAX_COMMIT_BYTES: u64 = 100;

/// A model's file, of a split model the first part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// What it is called: its file's name without ending and part, with Ollama its name there.
    pub name: String,
    /// Who keeps it.
    pub keeper: Keeper,
    /// The repository that it came from, where its place tells.
    pub repository: Option<String>,
    /// The length of the file, of a split model that of its first part.
    pub bytes: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// All models, by name. A file that is in two places through links is there once.
pub fn scan(places: &Places) -> Vec<Found> {
    let mut walk = Walk { left: MAX_ENTRIES };
    let mut found = Vec::new();
    for (keeper, folder) in places
        .store
        .iter()
        .map(|store| (Keeper::Store, store))
        .chain(places.others.iter().map(|(keeper, folder)| (*keeper, folder)))
    {
        match keeper {
            Keeper::Store | Keeper::LmStudio => {
                walk.files(folder, 3, &mut |path| found.extend(gguf(path, keeper)))
            }
            Keeper::LlamaCpp => walk.files(folder, 1, &mut |path| found.extend(gguf(path, keeper))),
            Keeper::HuggingFace => walk.hub(folder, &mut found),
            Keeper::Ollama => {
                let manifests = folder.join("manifests");
                walk.files(&manifests, 4, &mut |path| {
                    found.extend(ollama(folder, &manifests, path))
                });
            }
        }
    }
    let mut seen = HashSet::new();
    found.retain(|model| seen.insert(model.path.canonicalize().unwrap_or_else(|_| model.path.clone())));
    // Of one name and keeper, the order is that of preference, in which they were found.
    found.sort_by(|a, b| (&a.name, a.keeper).cmp(&(&b.name, b.keeper)));
    found
}

struct Walk {
    left: usize,
}

impl Walk {
    /// Calls `each` for all files in a folder, down to so many levels of folders, in order.
    fn files(&mut self, folder: &Path, levels: u32, each: &mut dyn FnMut(&Path)) {
        for path in self.entries(folder) {
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_hidden {
                continue;
            }
            if path.is_dir() {
                if levels > 1 {
                    self.files(&path, levels - 1, each);
                }
            } else {
                each(&path);
            }
        }
    }

    /// `models--org--repo/snapshots/commit/…`, where files are links to the cache's blobs.
    fn hub(&mut self, folder: &Path, found: &mut Vec<Found>) {
        for path in self.entries(folder) {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let Some(repository) = name.strip_prefix("models--").map(|name| name.replace("--", "/")) else {
                continue;
            };
            let mut snapshots = self.entries(&path.join("snapshots"));
            prefer_current(&mut snapshots, &main_commit(&path));
            for snapshot in snapshots {
                self.files(&snapshot, 3, &mut |path| {
                    found.extend(gguf(path, Keeper::HuggingFace).map(|found| Found {
                        repository: Some(repository.clone()),
                        ..found
                    }));
                });
            }
        }
    }

    /// What is in a folder, in order.
    fn entries(&mut self, folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries
            .take(self.left)
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        self.left -= paths.len();
        paths.sort();
        paths
    }
}

/// The commit that a repository's main branch was at when it was downloaded last; empty if that is not
/// known.
fn main_commit(repository: &Path) -> String {
    let mut commit = String::new();
    let file = File::open(repository.join("refs/main"));
    // What cannot be read names no commit.
    let _ = file.and_then(|file| file.take(MAX_COMMIT_BYTES).read_to_string(&mut commit));
    commit.trim().to_owned()
}

/// Puts the snapshot of that commit first, then the newest: names of commits have no order.
fn prefer_current(snapshots: &mut [PathBuf], commit: &str) {
    snapshots.sort_by_cached_key(|snapshot| {
        let is_current = snapshot.file_name().is_some_and(|name| name == commit);
        let modified = snapshot.metadata().and_then(|metadata| metadata.modified());
        Reverse((is_current, modified.unwrap_or(SystemTime::UNIX_EPOCH)))
    });
}

/// The model that a file is, if it is one that can be served.
fn gguf(path: &Path, keeper: Keeper) -> Option<Found> {
    let stem = file::stem(path);
    if !file::is_gguf(path) || !serves(&stem) {
        return None;
    }
    let name = file::id(&stem).to_owned();
    found(path, name, keeper)
}

fn found(path: &Path, name: String, keeper: Keeper) -> Option<Found> {
    let metadata = path.metadata().ok().filter(fs::Metadata::is_file)?;
    Some(Found {
        path: path.to_owned(),
        name,
        keeper,
        repository: None,
        bytes: metadata.len(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

/// The files that belong to a model's first one, in reverse order: itself is the last.
pub fn parts(first: &Path) -> Vec<PathBuf> {
    let stem = file::stem(first);
    let of_same = |path: &PathBuf| {
        file::is_gguf(path) && file::part(&file::stem(path)).is_some_and(|part| part.first(path) == first)
    };
    let mut parts: Vec<PathBuf> = match (file::part(&stem), first.parent()) {
        (Some(_), Some(folder)) => fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(of_same)
            .collect(),
        _ => vec![first.to_owned()],
    };
    parts.sort();
    parts.reverse();
    parts
}

/// Whether a file with this stem can be served: the eyes of a model are of no use alone.
fn serves(stem: &str) -> bool {
    let lower = stem.to_lowercase();
    file::part(stem).is_none_or(|part| part.number == 1)
        && !lower.contains("mmproj")
        && !lower.contains("imatrix")
}

/// A manifest of Ollama: which file is the model of a name and a tag.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
}

/// The model of a manifest: `manifests/registry.ollama.ai/library/NAME/TAG` says which blob it is.
fn ollama(folder: &Path, manifests: &Path, path: &Path) -> Option<Found> {
    let parts: Vec<String> = path
        .strip_prefix(manifests)
        .ok()?
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let [_, owner, name, tag] = parts.as_slice() else {
        return None;
    };
    let size = path.metadata().ok()?.len();
    let text = (size <= MAX_MANIFEST_BYTES)
        .then(|| fs::read(path).ok())
        .flatten()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    let model = manifest
        .layers
        .into_iter()
        .find(|layer| layer.media_type == "application/vnd.ollama.image.model")?;
    let digest = model.digest.strip_prefix("sha256:")?;
    if !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let name = match owner.as_str() {
        "library" => format!("{name}:{tag}"),
        owner => format!("{owner}/{name}:{tag}"),
    };
    found(
        &folder.join("blobs").join(format!("sha256-{digest}")),
        name,
        Keeper::Ollama,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn scan(&self) -> Vec<(String, Keeper)> {
            let folder = |name: &str| self.0.path().join(name);
            let places = Places {
                store: Some(folder("store")),
                others: vec![
                    (Keeper::HuggingFace, folder("hub")),
                    (Keeper::LmStudio, folder("lm")),
                    (Keeper::Ollama, folder("ollama")),
                    (Keeper::LlamaCpp, folder("none")),
                ],
            };
            scan(&places)
                .into_iter()
                .map(|found| (found.name, found.keeper))
                .collect()
        }
    }

    #[test]
    fn each_keeper_s_models_are_found_by_its_own_names() {
        let disk = Disk::new();
        disk.write("store/a.gguf", "GGUF");
        disk.write("store/b-00001-of-00002.gguf", "GGUF");
        disk.write("store/b-00002-of-00002.gguf", "GGUF");
        disk.write("store/mmproj-a.gguf", "GGUF");
        disk.write("store/.a.gguf.part", "GGUF");
        disk.write("store/readme.txt", "");
        disk.write("lm/org/repo/c.gguf", "GGUF");
        disk.write("hub/models--org--repo/snapshots/abc/d.gguf", "GGUF");
        disk.write("hub/models--org--repo/blobs/abc", "GGUF");
        disk.write("ollama/blobs/sha256-0a", "GGUF");
        disk.write(
            "ollama/manifests/registry.ollama.ai/library/qwen3/8b",
            r#"{"layers":[{"mediaType":"application/vnd.ollama.image.template","digest":"sha256:ff"},
                {"mediaType":"application/vnd.ollama.image.model","digest":"sha256:0a"}]}"#,
        );
        let named = |name: &str, keeper| (name.to_owned(), keeper);
        assert_eq!(
            disk.scan(),
            [
                named("a", Keeper::Store),
                named("b", Keeper::Store),
                named("c", Keeper::LmStudio),
                named("d", Keeper::HuggingFace),
                named("qwen3:8b", Keeper::Ollama),
            ]
        );
    }

    #[test]
    fn of_a_repository_s_snapshots_the_current_one_comes_first() {
        let disk = Disk::new();
        let snapshots = "hub/models--org--repo/snapshots";
        for (commit, age) in [("aa", 20), ("bb", 30), ("cc", 10)] {
            let path = disk.write(&format!("{snapshots}/{commit}/d.gguf"), "GGUF");
            let folder = File::open(path.parent().unwrap()).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            folder.set_modified(time).unwrap();
        }
        let order = |disk: &Disk| {
            let others = vec![(Keeper::HuggingFace, disk.0.path().join("hub"))];
            let found = scan(&Places { store: None, others });
            let commit = |found: Found| found.path.parent()?.file_name()?.to_str().map(str::to_owned);
            found.into_iter().filter_map(commit).collect::<Vec<_>>()
        };
        assert_eq!(order(&disk), ["cc", "aa", "bb"], "the newest");
        disk.write("hub/models--org--repo/refs/main", "bb\n");
        assert_eq!(order(&disk), ["bb", "cc", "aa"], "what the branch is at");
    }

    #[test]
    fn a_model_s_parts_are_found_the_first_last() {
        let disk = Disk::new();
        let first = disk.write("store/b-00001-of-00003.gguf", "GGUF");
        let third = disk.write("store/b-00003-of-00003.gguf", "GGUF");
        disk.write("store/b-00002-of-00004.gguf", "GGUF");
        let single = disk.write("store/b.gguf", "GGUF");
        assert_eq!(parts(&first), [third, first]);
        assert_eq!(parts(&single), [single]);
    }

    #[test]
    fn manifests_that_lead_elsewhere_are_passed_over() {
        let disk = Disk::new();
        disk.write("secret.gguf", "GGUF");
        for (tag, text) in [
            ("a", "no json"),
            (
                "b",
                r#"{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:../../secret.gguf"}]}"#,
            ),
            (
                "c",
                r#"{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:00"}]}"#,
            ),
        ] {
            disk.write(
                &format!("ollama/manifests/registry.ollama.ai/library/m/{tag}"),
                text,
            );
        }
        assert_eq!(disk.scan(), []);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_another_model() {
        let disk = Disk::new();
        let model = disk.write("store/a.gguf", "GGUF");
        fs::create_dir_all(disk.0.path().join("lm/x/y")).unwrap();
        std::os::unix::fs::symlink(model, disk.0.path().join("lm/x/y/a.gguf")).unwrap();
        assert_eq!(disk.scan(), [("a".to_owned(), Keeper::Store)]);
    }
}
