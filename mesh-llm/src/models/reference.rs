//! What the words after `--model` and `download` refer to. Pure.

use std::fmt;
use std::path::PathBuf;

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The model inside the binary.
    Tiny,
    /// A file on this machine.
    Path(PathBuf),
    /// Something in a repository of Hugging Face.
    Repository(Repository),
    /// A file somewhere else.
    Url(String),
    /// A name, of the catalog or of a model on disk, in any spelling.
    Name(String),
}

/// A repository of Hugging Face, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `org/repo`.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// Which of its files.
    pub pick: Pick,
}

/// Which of a repository's files is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The one that suits most people.
    Usual,
    /// The one of this quantization, as `Q4_K_M`.
    Quantization(String),
    /// This one.
    File(String),
}

impl Repository {
    /// Where a file of it comes from, to be told from others of that name.
    pub fn origin(&self) -> String {
        match self.revision.as_str() {
            MAIN => self.name.clone(),
            revision => format!("{}@{revision}", self.name),
        }
    }
}

/// The branch that everybody means.
pub const MAIN: &str = "main";

impl Reference {
    /// Reads the words. `exists` says whether there is a file or folder of that name.
    pub fn read(words: &str, exists: impl Fn(&str) -> bool) -> Self {
        let words = words.trim();
        if words == super::TINY {
            return Self::Tiny;
        }
        if let Some(rest) = words
            .strip_prefix("hf://")
            .or_else(|| words.strip_prefix("hf.co/"))
        {
            return repository(rest).map_or_else(|| Self::Name(words.to_owned()), Self::Repository);
        }
        if words.starts_with("https://") || words.starts_with("http://") {
            return Self::Url(words.to_owned());
        }
        if exists(words) || is_written_as_a_path(words) {
            return Self::Path(words.into());
        }
        match repository(words) {
            Some(repository) => Self::Repository(repository),
            None if words.contains('/') || words.contains('\\') || is_gguf(words) => Self::Path(words.into()),
            None => Self::Name(words.to_owned()),
        }
    }
}

fn is_written_as_a_path(words: &str) -> bool {
    let windows_drive = words.as_bytes().get(1..3).is_some_and(|rest| rest == b":\\");
    words.starts_with(['/', '.', '~', '\\']) || windows_drive
}

fn is_gguf(words: &str) -> bool {
    words.to_ascii_lowercase().ends_with(".gguf")
}

/// `org/repo`, `org/repo:QUANT`, `org/repo/folder/file.gguf`, each with `@revision` after the repository.
fn repository(words: &str) -> Option<Repository> {
    let mut parts = words.splitn(3, '/');
    let (org, repo, file) = (parts.next()?, parts.next()?, parts.next());
    let (repo, quantization) = match repo.split_once(':') {
        Some((repo, quantization)) => (repo, Some(quantization)),
        None => (repo, None),
    };
    let (repo, revision) = repo.split_once('@').unwrap_or((repo, MAIN));
    let pick = match (file, quantization) {
        (None, None) => Pick::Usual,
        (None, Some(quantization)) if !quantization.is_empty() => Pick::Quantization(quantization.to_owned()),
        (Some(file), None) if is_gguf(file) && is_inside(file) => Pick::File(file.to_owned()),
        _ => return None,
    };
    let sound = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let is_written = !words.chars().any(char::is_control);
    // `folder/file.gguf` is a path, however much it looks like a repository.
    let is_file = file.is_none() && quantization.is_none() && is_gguf(repo);
    (is_written && sound(org) && sound(repo) && sound(revision) && !is_file).then(|| Repository {
        name: format!("{org}/{repo}"),
        revision: revision.to_owned(),
        pick,
    })
}

/// Whether a path does not lead out of its folder.
pub fn is_inside(path: &str) -> bool {
    path.split(['/', '\\'])
        .all(|part| !part.is_empty() && part != "." && part != "..")
}

/// As it is written again.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        match &self.pick {
            Pick::Usual => Ok(()),
            Pick::Quantization(quantization) => write!(f, ":{quantization}"),
            Pick::File(file) => write!(f, "/{file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(words: &str) -> Reference {
        Reference::read(words, |_| false)
    }

    fn in_repository(name: &str, pick: Pick) -> Reference {
        Reference::Repository(Repository {
            name: name.to_owned(),
            revision: MAIN.to_owned(),
            pick,
        })
    }

    #[test]
    fn each_form_is_told_from_the_others() {
        assert_eq!(read("tiny"), Reference::Tiny);
        assert_eq!(read("qwen2.5 32b"), Reference::Name("qwen2.5 32b".into()));
        assert_eq!(read("qwen3:8b"), Reference::Name("qwen3:8b".into()));
        assert_eq!(read("org/repo"), in_repository("org/repo", Pick::Usual));
        assert_eq!(read("hf://org/repo"), in_repository("org/repo", Pick::Usual));
        assert_eq!(
            read("org/repo:Q4_K_M"),
            in_repository("org/repo", Pick::Quantization("Q4_K_M".into()))
        );
        assert_eq!(
            read("org/repo/a/b.gguf"),
            in_repository("org/repo", Pick::File("a/b.gguf".into()))
        );
        assert_eq!(
            read("https://a.b/c.gguf"),
            Reference::Url("https://a.b/c.gguf".into())
        );
        for path in [
            "./x",
            "/m/x.gguf",
            "~/x.gguf",
            "x.gguf",
            "models/x.gguf",
            "a/b/c/d",
            "C:\\m\\x.gguf",
        ] {
            assert_eq!(read(path), Reference::Path(path.into()), "{path}");
        }
    }

    #[test]
    fn what_is_there_is_a_path_whatever_it_looks_like() {
        assert_eq!(
            Reference::read("org/repo", |_| true),
            Reference::Path("org/repo".into())
        );
        assert_eq!(Reference::read("tiny", |_| true), Reference::Tiny);
    }

    #[test]
    fn a_revision_stands_behind_the_repository() {
        let Reference::Repository(repository) = read("org/repo@v2:Q8_0") else {
            panic!("no repository");
        };
        assert_eq!(
            (repository.name.as_str(), repository.revision.as_str()),
            ("org/repo", "v2")
        );
        assert_eq!(repository.to_string(), "org/repo@v2:Q8_0");
    }

    #[test]
    fn a_file_of_a_repository_stays_inside() {
        for words in [
            "org/repo/../../x.gguf",
            "org/repo//x.gguf",
            "org/../x/y.gguf",
            "org/repo/\x1b[2Jx.gguf",
            "org/repo:Q4\x07",
        ] {
            assert!(!matches!(read(words), Reference::Repository(_)), "{words}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_something(words in ".{0,40}") {
            read(&words);
        }

        #[test]
        fn a_repository_is_read_as_it_is_written(words in "[a-z]{1,5}/[a-zA-Z0-9]{1,5}(@v[0-9])?(:Q[0-9]_K|/[a-z]{1,3}\\.gguf)?") {
            let Reference::Repository(repository) = read(&words) else {
                panic!("{words} is no repository");
            };
            prop_assert_eq!(repository.to_string(), words);
        }
    }
}
