//! Which model is served when nobody names one. Pure.

use super::catalog::Entry;
use super::inventory::OnDisk;
use std::fmt;
use std::path::{Path, PathBuf};

/// The name of the model inside the binary.
pub const TINY: &str = "tiny";

/// What a model needs besides the bytes of its files: a context to talk in, and the program.
const BESIDE_WEIGHTS_BYTES: u64 = 512 << 20;

/// Why a model was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The user named it.
    Named,
    /// It was served last.
    LastUsed,
    /// It is the largest that fits into memory.
    Largest {
        /// How many there are beside it.
        others: usize,
    },
    /// None of those on disk fits.
    NoneFits {
        /// How many there are.
        models: usize,
    },
    /// There is none on disk.
    NoneOnDisk {
        /// Where downloads would go.
        store: Option<PathBuf>,
    },
}

/// For a choice that the user did not make, a sentence that says so.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ANOTHER: &str = "--model chooses another";
        const REAL: &str = "`mesh-llm download` lists models that can be fetched";
        match self {
            Choice::Named => write!(f, "the model is the one named"),
            Choice::LastUsed => write!(f, "no model was named: using the last one again ({ANOTHER})"),
            Choice::Largest { others: 0 } => write!(f, "no model was named: using the only one on disk"),
            Choice::Largest { others } => write!(
                f,
                "no model was named: using the largest of {} on disk that fits into memory ({ANOTHER})",
                others + 1
            ),
            Choice::NoneFits { models } => write!(
                f,
                "no model was named, and none of the {models} on disk fits into memory: using the embedded `{TINY}` ({REAL})"
            ),
            Choice::NoneOnDisk { store: Some(store) } => write!(
                f,
                "no model was named and none is in {}: using the embedded `{TINY}` ({REAL})",
                store.display()
            ),
            Choice::NoneOnDisk { store: None } => {
                write!(f, "no model was named: using the embedded `{TINY}` ({REAL})")
            }
        }
    }
}

/// Whether files of this length can be served in so much memory.
pub fn fits(file_bytes: u64, memory_bytes: u64) -> bool {
    file_bytes
        .saturating_add(file_bytes / 20)
        .saturating_add(BESIDE_WEIGHTS_BYTES)
        <= memory_bytes
}

/// The model of the catalog to fetch where nothing else is said: the largest that leaves half of the
/// memory to a long context and to others.
pub fn recommend(entries: &[Entry], memory_bytes: u64) -> Option<&Entry> {
    entries
        .iter()
        .filter(|entry| entry.source.is_some() && fits(entry.bytes, memory_bytes / 2))
        .max_by_key(|entry| entry.bytes)
}

/// The model to serve: the one that was served last, else the largest that fits; none for the embedded
/// one.
pub fn choose<'a>(
    models: &'a [OnDisk],
    last: Option<&Path>,
    memory_bytes: u64,
    store: Option<&Path>,
) -> (Option<&'a OnDisk>, Choice) {
    let sound: Vec<&OnDisk> = models.iter().filter(|model| model.about.is_ok()).collect();
    if let Some(model) = sound
        .iter()
        .find(|model| Some(model.found.path.as_path()) == last)
    {
        return (Some(model), Choice::LastUsed);
    }
    let largest = sound
        .iter()
        .filter(|model| makes_text(model) && fits(model.bytes(), memory_bytes))
        .max_by_key(|model| (model.bytes(), std::cmp::Reverse(&model.found.path)));
    match largest {
        Some(model) => {
            let others = sound.len() - 1;
            (Some(model), Choice::Largest { others })
        }
        None if sound.is_empty() => (
            None,
            Choice::NoneOnDisk {
                store: store.map(Path::to_owned),
            },
        ),
        None => (None, Choice::NoneFits { models: sound.len() }),
    }
}

/// Whether a model talks; those that only make vectors are served when they are named. What is made to guess for another
/// (EAGLE-3) or to see for it is no model.
fn makes_text(model: &OnDisk) -> bool {
    model.about.as_ref().is_ok_and(|about| {
        let architecture = about.architecture.as_str();
        !architecture.contains("bert") && !["clip", "eagle3"].contains(&architecture)
    })
}

#[cfg(test)]
mod tests {
    use super::super::about::About;
    use super::super::places::Keeper;
    use super::super::scan::Found;
    use super::*;
    use std::time::SystemTime;

    const GB: u64 = 1 << 30;

    fn model(name: &str, architecture: &str, bytes: u64) -> OnDisk {
        let path = PathBuf::from(format!("/{name}"));
        OnDisk {
            found: Found {
                path: path.clone(),
                name: name.to_owned(),
                keeper: Keeper::Store,
                repository: None,
                bytes,
                modified: SystemTime::UNIX_EPOCH,
            },
            about: Ok(About {
                architecture: architecture.to_owned(),
                parameters: bytes,
                quantization: "Q8_0".to_owned(),
                context: None,
                bytes,
                files: vec![path],
            }),
        }
    }

    fn chosen(last: Option<&str>, memory: u64) -> (Option<String>, Choice) {
        let mut broken = model("broken", "llama", 3 * GB);
        broken.about = Err("damaged".to_owned());
        let models = [
            model("small", "llama", GB),
            model("large", "qwen3", 4 * GB),
            model("vectors", "nomic-bert", 5 * GB),
            model("guesses", "eagle3", 5 * GB),
            broken,
        ];
        let (model, choice) = choose(&models, last.map(Path::new), memory, None);
        (model.map(|model| model.found.name.clone()), choice)
    }

    #[test]
    fn what_is_recommended_leaves_half_of_the_memory() {
        let catalog = super::super::catalog::Catalog::new(None).unwrap();
        let name = |memory| recommend(catalog.entries(), memory).map(|entry| entry.name.as_str());
        assert_eq!(name(GB), None);
        assert_eq!(name(12 * GB), Some("Qwen3-8B-Q4_K_M"));
        for memory in [4, 8, 16, 32, 64, 128].map(|memory| memory * GB) {
            let entry = recommend(catalog.entries(), memory).unwrap();
            assert!(entry.bytes <= memory / 2 && entry.source.is_some(), "{entry:?}");
        }
    }

    #[test]
    fn the_last_one_then_the_largest_that_fits_then_tiny() {
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(
            chosen(Some("/small"), 64 * GB),
            (named("small"), Choice::LastUsed)
        );
        assert_eq!(
            chosen(None, 64 * GB),
            (named("large"), Choice::Largest { others: 3 })
        );
        assert_eq!(
            chosen(Some("/gone"), 3 * GB),
            (named("small"), Choice::Largest { others: 3 })
        );
        assert_eq!(
            chosen(Some("/broken"), GB),
            (None, Choice::NoneFits { models: 4 })
        );
        assert_eq!(choose(&[], None, GB, None).1, Choice::NoneOnDisk { store: None });
    }
}
