//! The models that are measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use llama_engine::gguf::random::{self, Architecture, Spec};

/// What all random weights are derived from.
const SEED: u64 = 1;

/// A model to measure with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchModel {
    /// The shape of Qwen2.5-0.5B in Q8_0, with random weights: 430 MB. Its answers never end by
    /// themselves.
    HalfBillion,
    /// The first so many layers of that, with its head.
    HalfBillionCut(u32),
    /// Guesses for [`BenchModel::Tiny`].
    TinyDraft,
    /// The one inside the binary. Its answers end only as it likes, unless that is forbidden.
    Tiny,
    /// As small as one can be, for what is not about computing. Its answers never end by themselves.
    Least,
}

impl BenchModel {
    /// Its name in cases.
    pub fn name(self) -> &'static str {
        match self {
            BenchModel::HalfBillion => "0.5B",
            BenchModel::HalfBillionCut(_) => "layers of 0.5B",
            BenchModel::Tiny => "tiny",
            BenchModel::TinyDraft => "draft of tiny",
            BenchModel::Least => "least",
        }
    }

    /// Whether requests must forbid the end of an answer, to get one of a length known before.
    pub fn ends_answers(self) -> bool {
        self == BenchModel::Tiny
    }

    /// Its file, made if it is not there yet.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn path(self) -> anyhow::Result<PathBuf> {
        match self {
            BenchModel::Tiny => Ok(asset("mesh-tiny.gguf")),
            BenchModel::TinyDraft => Ok(asset("mesh-tiny-draft.gguf")),
            BenchModel::HalfBillion => made("qwen2-0.5b", &random::qwen2_half_billion(SEED)),
            BenchModel::HalfBillionCut(layers) => {
                let spec = Spec {
                    layers,
                    ..random::qwen2_half_billion(SEED)
                };
                made(&format!("qwen2-0.5b-{layers}-layers"), &spec)
            }
            BenchModel::Least => {
                let spec = Spec {
                    layers: 1,
                    embedding_length: 32,
                    head_count: 1,
                    head_count_kv: 1,
                    feed_forward_length: 32,
                    ..random::small(Architecture::Llama, SEED)
                };
                made("least", &spec)
            }
        }
    }
}

/// A file that the binary has inside.
fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

/// The file of a model with random weights.
fn made(name: &str, spec: &Spec) -> anyhow::Result<PathBuf> {
    // Cargo's folder for this is `target/tmp`; models are kept beside it, as it may be emptied.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .context("the target folder is not known")?;
    let folder = target.join("bench-models");
    let path = folder.join(format!("{name}-random-{SEED}.gguf"));
    if !path.exists() {
        eprintln!("making {}", path.display());
        fs::create_dir_all(&folder)?;
        let unfinished = path.with_extension("part");
        spec.write(&unfinished)?;
        fs::rename(&unfinished, &path)?;
    }
    Ok(path)
}
