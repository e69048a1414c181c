//! Model files for tests.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use llama_engine::gguf::random::{self, Architecture, Spec, WeightType};

/// A model with random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Never ends an answer by itself; 32,768 tokens of context.
    Endless,
    /// As small as one can be.
    Least,
    /// Takes 131 kB of cache for each token, so that no machine holds a long context.
    Forgetless,
    /// Of this architecture.
    Of(Architecture),
}

/// What the model is like.
fn spec(kind: Kind) -> Spec {
    match kind {
        Kind::Endless => random::small(Architecture::Llama, 7),
        Kind::Least => Spec {
            layers: 1,
            embedding_length: 32,
            head_count: 1,
            head_count_kv: 1,
            feed_forward_length: 32,
            vocabulary_size: 484,
            ..random::small(Architecture::Llama, 1)
        },
        Kind::Forgetless => Spec {
            embedding_length: 32,
            head_count: 64,
            head_count_kv: 64,
            head_length: 128,
            feed_forward_length: 32,
            weight_type: WeightType::F16,
            ..random::small(Architecture::Llama, 1)
        },
        Kind::Of(architecture) => random::small(architecture, 3),
    }
}

static WRITTEN: LazyLock<Mutex<HashMap<Kind, PathBuf>>> = LazyLock::new(Mutex::default);

/// The model's file, written when it is first asked for.
pub fn model(kind: Kind) -> PathBuf {
    let mut written = WRITTEN.lock().unwrap();
    let write = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("blackbox");
        fs::create_dir_all(&folder).unwrap();
        let name = match kind {
            Kind::Endless => "endless".to_owned(),
            Kind::Least => "least".to_owned(),
            Kind::Forgetless => "forgetless".to_owned(),
            Kind::Of(architecture) => architecture.to_string(),
        };
        // Another run of these tests may read the file: it changes all at once.
        let unfinished = folder.join(format!("{name}-{}", std::process::id()));
        spec(kind).write(&unfinished).unwrap();
        let path = folder.join(format!("{name}.gguf"));
        fs::rename(unfinished, &path).unwrap();
        path
    };
    written.entry(kind).or_insert_with(write).clone()
}
