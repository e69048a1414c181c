//! Random models as files.

use super::super::{Gguf, Model};
use super::*;

#[test]
fn every_preset_is_read_back_with_its_architecture() {
    let directory = tempfile::tempdir().unwrap();
    for architecture in Architecture::ALL {
        let path = directory.path().join(format!("{architecture}.gguf"));
        let spec = small(architecture, 1);
        spec.write(&path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(
            gguf.require::<&str>("general.architecture").unwrap(),
            architecture.name()
        );
        assert_eq!(gguf.tensors().len(), spec.tensor_count().unwrap());
        assert!(
            gguf.file_bytes() < 20_000_000,
            "{architecture}: {}",
            gguf.file_bytes()
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_file_and_another_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = |seed| {
        let path = directory.path().join("model.gguf");
        small(Architecture::Llama, seed).write(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn a_tensor_is_drawn_alike_in_a_deeper_model() {
    let directory = tempfile::tempdir().unwrap();
    let tensor = |layers, name: &str| {
        let path = directory.path().join("model.gguf");
        let spec = Spec {
            layers,
            ..small(Architecture::Llama, 1)
        };
        spec.write(&path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let tensor = gguf.tensor(name).unwrap();
        let begin = tensor.offset as usize;
        std::fs::read(path).unwrap()[begin..begin + tensor.bytes as usize].to_vec()
    };
    let name = "blk.1.attn_q.weight";
    assert_eq!(tensor(2, name), tensor(8, name));
}

#[test]
fn parts_hold_the_same_tensors_as_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let spec = small(Architecture::Qwen2, 1);
    let whole = directory.path().join("whole.gguf");
    spec.write(&whole).unwrap();
    let count = spec.tensor_count().unwrap();
    let parts = spec
        .write_parts(directory.path().join("parts"), &[0, 10, count - 10])
        .unwrap();
    let (whole, parts) = (Model::open(whole).unwrap(), Model::open(&parts[0]).unwrap());
    assert_eq!(parts.tensor_count(), count);
    assert_eq!(whole.tensor_bytes(), parts.tensor_bytes());
    let names = |model: &Model| -> Vec<String> {
        model
            .tensors()
            .map(|location| location.tensor.name.clone())
            .collect()
    };
    assert_eq!(names(&whole), names(&parts));
}

#[test]
fn models_that_cannot_be_are_refused() {
    let base = small(Architecture::Phi3, 1);
    let refused = [
        Spec {
            layers: 0,
            ..base.clone()
        },
        Spec {
            embedding_length: 100,
            weight_type: WeightType::Q8_0,
            ..small(Architecture::Llama, 1)
        },
        Spec {
            head_count: 3,
            ..base.clone()
        },
        Spec {
            head_length: 64,
            ..base.clone()
        },
        Spec {
            layers: 3,
            ..small(Architecture::Qwen35, 1)
        },
        Spec {
            heads: 1,
            ..base.clone()
        },
        Spec {
            heads: 2,
            ..small(Architecture::Glm4Moe, 1)
        },
        Spec {
            vocabulary_size: 10,
            ..base
        },
    ];
    for spec in refused {
        assert!(spec.tensor_count().is_err(), "{spec:?}");
    }
}

#[test]
fn the_model_for_benchmarks_has_430_megabytes() {
    let spec = qwen2_half_billion(1);
    let plan = spec.plan().unwrap();
    let bytes: u64 = plan
        .tensors
        .iter()
        .map(|weights| super::super::types::byte_size(&weights.shape, weights.tensor_type).unwrap())
        .sum();
    assert!((425_000_000..432_000_000).contains(&bytes), "{bytes}");
}

#[test]
fn architectures_are_found_by_name() {
    for architecture in Architecture::ALL {
        assert_eq!(architecture.name().parse(), Ok(architecture));
    }
    let message = "gpt4".parse::<Architecture>().unwrap_err();
    assert!(message.starts_with("`gpt4` is none of llama, qwen2"), "{message}");
}
