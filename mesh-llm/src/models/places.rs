//! Where models are found on this machine: the store, and the folders of other programs, which are
//! read and never written.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Who keeps a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeper {
    /// The store: flat files that anyone may put there.
    Store,
    /// The cache of Hugging Face's programs.
    HuggingFace,
    /// The cache of llama.cpp's programs.
    LlamaCpp,
    /// LM Studio.
    LmStudio,
    /// Ollama, whose manifests name its files.
    Ollama,
}

/// As people call it.
impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Keeper::Store => "store",
            Keeper::HuggingFace => "Hugging Face",
            Keeper::LlamaCpp => "llama.cpp",
            Keeper::LmStudio => "LM Studio",
            Keeper::Ollama => "Ollama",
        })
    }
}

/// The folders that models are looked for in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The store, where downloads go, too; none where there is no home directory.
    pub store: Option<PathBuf>,
    /// The folders of other programs; they need not be there.
    pub others: Vec<(Keeper, PathBuf)>,
}

impl Places {
    /// Those of a user, by the variables that the programs themselves go by.
    pub fn of_user(
        store: Option<PathBuf>,
        home: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Self {
        let variable = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let in_home = |path: &str| home.map(|home| home.join(path));
        let cache = variable("XDG_CACHE_HOME").or_else(|| in_home(".cache"));
        let in_cache = |path: &str| cache.as_ref().map(|cache| cache.join(path));
        let hub = variable("HF_HUB_CACHE")
            .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| in_cache("huggingface/hub"));
        let folders = [
            (Keeper::HuggingFace, hub),
            (
                Keeper::LlamaCpp,
                variable("LLAMA_CACHE").or_else(|| in_cache("llama.cpp")),
            ),
            (Keeper::LmStudio, in_home(".lmstudio/models")),
            (Keeper::LmStudio, in_home(".cache/lm-studio/models")),
            (
                Keeper::Ollama,
                variable("OLLAMA_MODELS").or_else(|| in_home(".ollama/models")),
            ),
            (Keeper::Ollama, Some("/usr/share/ollama/.ollama/models".into())),
        ];
        let others = folders
            .into_iter()
            .filter_map(|(keeper, folder)| Some((keeper, folder?)))
            .collect();
        Self { store, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_other_programs_count() {
        let variable = |name: &str| match name {
            "HF_HOME" => Some("/hf".into()),
            "OLLAMA_MODELS" => Some("/ollama".into()),
            "LLAMA_CACHE" => Some(OsString::new()),
            _ => None,
        };
        let places = Places::of_user(None, Some(Path::new("/home/u")), &variable);
        let of = |keeper| -> Vec<&Path> {
            let others = places.others.iter();
            others
                .filter(|(of, _)| *of == keeper)
                .map(|(_, path)| path.as_path())
                .collect()
        };
        assert_eq!(of(Keeper::HuggingFace), [Path::new("/hf/hub")]);
        assert_eq!(of(Keeper::LlamaCpp), [Path::new("/home/u/.cache/llama.cpp")]);
        assert_eq!(of(Keeper::Ollama)[0], Path::new("/ollama"));
    }
}
