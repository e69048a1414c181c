//! Finds the file of the model to serve, and the name that clients call it by.
//!
//! This room reads no more of a file than its first bytes: whether it is a sound model is the
//! engine's to say.

pub mod download;
mod file;
mod folder;
mod tiny;

use crate::exit::Exit;
use std::fmt;
use std::path::{Path, PathBuf};

/// The name of the model inside the binary.
pub const TINY: &str = "tiny";

/// The folders that models come from.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// Where the daemon keeps models of its own; made when it is needed.
    pub store: &'a Path,
    /// Where the user keeps models; may be missing.
    pub user: Option<&'a Path>,
}

/// A model that can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The file, of a split model its first part.
    pub path: PathBuf,
    /// What clients call it.
    pub id: String,
    /// Why this one.
    pub choice: Choice,
}

/// Why a model was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The user named it.
    Named,
    /// It is the newest that the user has.
    Newest {
        /// Where.
        folder: PathBuf,
        /// How many there are beside it.
        others: usize,
    },
    /// The user has none.
    NoneOnDisk {
        /// Where one was looked for.
        folder: Option<PathBuf>,
    },
}

/// For a choice that the user did not make, a sentence that says so.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Named => write!(f, "the model is the one named"),
            Choice::Newest { folder, others: 0 } => {
                write!(f, "no model was named: using the one in {}", folder.display())
            }
            Choice::Newest { folder, others } => write!(
                f,
                "no model was named: using the newest of {} in {} (--model chooses another)",
                others + 1,
                folder.display()
            ),
            Choice::NoneOnDisk { folder: Some(folder) } => write!(
                f,
                "no model was named and none is in {}: using the embedded `{TINY}` (--model FILE.gguf serves a real one)",
                folder.display()
            ),
            Choice::NoneOnDisk { folder: None } => write!(
                f,
                "no model was named: using the embedded `{TINY}` (--model FILE.gguf serves a real one)"
            ),
        }
    }
}

/// Finds the model that `wanted` refers to or, where nothing is wanted, the one to serve then.
pub fn resolve(wanted: Option<&Path>, folders: Folders<'_>) -> Result<Model, Error> {
    match wanted {
        Some(wanted) if wanted == Path::new(TINY) => tiny::model(folders.store, Choice::Named),
        Some(wanted) if names_a_file(wanted) => file_model(wanted, Choice::Named),
        Some(wanted) => Err(unknown_name(&wanted.to_string_lossy(), folders.user)),
        None => unnamed(folders),
    }
}

/// Whether the words must be meant as a path.
fn names_a_file(wanted: &Path) -> bool {
    wanted.components().count() > 1 || file::is_gguf(wanted) || wanted.exists()
}

fn file_model(path: &Path, choice: Choice) -> Result<Model, Error> {
    let stem = file::stem(path);
    if let Some(part) = file::part(&stem).filter(|part| part.number != 1) {
        return Err(Error::NotTheFirstPart {
            path: path.to_owned(),
            first: part.first(path),
        });
    }
    file::check(path)?;
    Ok(Model {
        path: path.to_owned(),
        id: file::id(&stem).to_owned(),
        choice,
    })
}

fn unnamed(folders: Folders<'_>) -> Result<Model, Error> {
    let found = folders.user.map(folder::models).unwrap_or_default();
    match (folders.user, found.first()) {
        (Some(folder), Some(newest)) => {
            let others = found.len() - 1;
            file_model(
                newest,
                Choice::Newest {
                    folder: folder.to_owned(),
                    others,
                },
            )
        }
        (folder, _) => tiny::model(
            folders.store,
            Choice::NoneOnDisk {
                folder: folder.map(Path::to_owned),
            },
        ),
    }
}

fn unknown_name(name: &str, folder: Option<&Path>) -> Error {
    let similar = folder
        .map(|folder| folder::similar(folder, name))
        .unwrap_or_default();
    Error::UnknownName {
        name: name.to_owned(),
        similar: Similar(similar),
    }
}

/// Files that may have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Similar(pub Vec<PathBuf>);

impl fmt::Display for Similar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            let before = if index == 0 { "; on disk there is " } else { ", " };
            write!(f, "{before}{}", path.display())?;
        }
        Ok(())
    }
}

/// Why there is no model to serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The words are neither a file nor a name that is known.
    #[error(
        "there is no model `{name}`: it is no file, and models cannot be downloaded by name yet; give --model the path of a GGUF file, or `{TINY}`{similar}"
    )]
    UnknownName {
        /// The words.
        name: String,
        /// What may have been meant.
        similar: Similar,
    },
    /// The file cannot be opened or read.
    #[error("the model {} cannot be read: {cause}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The path leads to something that is not a file.
    #[error("the model {} is not a file; give --model a file that ends in .gguf", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a GGUF file: it {what}; download it again, or convert the model to GGUF first", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The file is a later part of a split model.
    #[error("{} is not the first part of its model; name {}", path.display(), first.display())]
    NotTheFirstPart {
        /// The file.
        path: PathBuf,
        /// The part to name.
        first: PathBuf,
    },
    /// The embedded model could not be put on disk.
    #[error("the embedded model cannot be written to {}: {cause}; free space there, or set MESH_LLM_HOME to a folder that you can write to", path.display())]
    Unwritable {
        /// Where to.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
}

impl Error {
    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        match self {
            Error::UnknownName { .. } | Error::Unreadable { .. } | Error::NotAFile { .. } => Exit::FILE,
            Error::NotGguf { .. } | Error::NotTheFirstPart { .. } => Exit::MODEL,
            Error::Unwritable { .. } => Exit::STATE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::{Duration, SystemTime};

    struct Disk {
        root: tempfile::TempDir,
    }

    impl Disk {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("user")).unwrap();
            Self { root }
        }

        fn user(&self) -> PathBuf {
            self.root.path().join("user")
        }

        fn model(&self, name: &str, age_seconds: u64) -> PathBuf {
            let path = self.user().join(name);
            let file = fs::File::create(&path).unwrap();
            fs::write(&path, b"GGUF\x03\0\0\0").unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_seconds))
                .unwrap();
            path
        }

        fn resolve(&self, wanted: Option<&str>) -> Result<Model, Error> {
            let (store, user) = (self.root.path().join("store"), self.user());
            resolve(
                wanted.map(Path::new),
                Folders {
                    store: &store,
                    user: Some(&user),
                },
            )
        }
    }

    #[test]
    fn a_path_is_served_under_its_stem() {
        let disk = Disk::new();
        let path = disk.model("Qwen3-8B-Q4_K_M.gguf", 0);
        let model = disk.resolve(path.to_str()).unwrap();
        assert_eq!(
            (model.id.as_str(), model.choice),
            ("Qwen3-8B-Q4_K_M", Choice::Named)
        );
    }

    #[test]
    fn without_a_name_the_newest_is_served_and_that_is_said() {
        let disk = Disk::new();
        disk.model("old.gguf", 100);
        disk.model("new-00001-of-00002.gguf", 10);
        disk.model("new-00002-of-00002.gguf", 0);
        disk.model("mmproj-new.gguf", 0);
        let model = disk.resolve(None).unwrap();
        assert_eq!(model.id, "new");
        assert!(
            model.choice.to_string().contains("newest of 2 in "),
            "{}",
            model.choice
        );
    }

    #[test]
    fn without_a_name_or_a_file_tiny_is_served_and_that_is_said() {
        let disk = Disk::new();
        let model = disk.resolve(None).unwrap();
        assert_eq!(model.id, TINY);
        assert!(
            model.choice.to_string().contains("none is in "),
            "{}",
            model.choice
        );
        assert_eq!(disk.resolve(Some("tiny")).unwrap().choice, Choice::Named);
    }

    #[test]
    fn a_name_is_answered_with_what_is_on_disk() {
        let disk = Disk::new();
        let path = disk.model("Qwen3-8B-Q4_K_M.gguf", 0);
        disk.model("other.gguf", 0);
        let error = disk.resolve(Some("qwen3:8b")).unwrap_err();
        assert_eq!(error.exit(), Exit::FILE);
        let text = error.to_string();
        assert!(
            text.contains("cannot be downloaded by name yet") && text.contains("`tiny`"),
            "{text}"
        );
        assert!(
            text.contains(path.to_str().unwrap()) && !text.contains("other"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_model_is_refused_by_kind() {
        let disk = Disk::new();
        let text = disk.user().join("text.gguf");
        fs::write(&text, "<html>not found</html>").unwrap();
        let empty = disk.user().join("empty.gguf");
        fs::write(&empty, "").unwrap();
        let folder = disk.user();
        let exit = |path: &Path| disk.resolve(path.to_str()).unwrap_err().exit();
        assert_eq!(exit(&text), Exit::MODEL);
        assert_eq!(exit(&empty), Exit::MODEL);
        assert_eq!(exit(&folder), Exit::FILE);
        assert_eq!(exit(&folder.join("none.gguf")), Exit::FILE);
        let second = disk.model("m-00002-of-00003.gguf", 0);
        let error = disk.resolve(second.to_str()).unwrap_err().to_string();
        assert!(error.ends_with("m-00001-of-00003.gguf"), "{error}");
    }
}
