//! Whether a model has heads that can guess: layers after the others, for the tokens after the next one (NextN, or
//! MTP). Known from its file, before llama.cpp sees it: it aborts the process where it has no graph for them.

use crate::gguf;

/// Heads that llama.cpp can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ModelHeads {
    /// Numbers of a hidden state.
    pub(super) hidden_length: u32,
}

/// What an architecture's heads must have for llama.cpp's graph of them, which does not look itself.
struct Needs {
    architecture: &'static str,
    /// Tensors that must be there, beside those of all heads.
    tensors: &'static [&'static str],
    /// Numbers that must be in the metadata and not 0.
    numbers: &'static [&'static str],
    /// Numbers that must be 0, if they are there.
    zeros: &'static [&'static str],
    /// Numbers of layers without the head for which its graph knows no way.
    layers: &'static [u32],
}

/// Those whose heads were seen to guess. The others' are left out.
const KNOWN: [Needs; 3] = [
    Needs {
        architecture: "glm4moe",
        tensors: &["ffn_gate_inp"],
        numbers: &["expert_shared_count"],
        zeros: &[],
        layers: &[],
    },
    Needs {
        architecture: "qwen35",
        tensors: &[],
        numbers: &[],
        zeros: &[],
        layers: &[],
    },
    Needs {
        architecture: "deepseek2",
        tensors: &["ffn_gate_inp"],
        numbers: &[
            "expert_shared_count",
            "attention.key_length_mla",
            "attention.value_length_mla",
            "attention.q_lora_rank",
        ],
        zeros: &["attention.temperature_scale"],
        // llama.cpp takes them for lite models, some of 48 layers too, whose queries have no latent vector.
        layers: &[26, 27, 48],
    },
];

/// The heads of a model. `None` if it has none, or none that llama.cpp can compute.
pub(super) fn find(model: &gguf::Model, architecture: &str, blocks: u32) -> Option<ModelHeads> {
    let number = |key: &str| {
        let number = model.metadata().get::<f32>(&format!("{architecture}.{key}"));
        number.ok().flatten().unwrap_or(0.0)
    };
    let whole = |key: &str| {
        let number = model.metadata().get::<u32>(&format!("{architecture}.{key}"));
        number.ok().flatten().unwrap_or(0)
    };
    // llama.cpp's graphs have one.
    if whole("nextn_predict_layers") != 1 {
        return None;
    }
    let needs = KNOWN.iter().find(|known| known.architecture == architecture)?;
    let layers = blocks.checked_sub(1)?;
    let has = |name: &str| model.tensor(&format!("blk.{layers}.{name}.weight")).is_some();
    let usable = ["nextn.eh_proj", "nextn.enorm", "nextn.hnorm"]
        .iter()
        .chain(needs.tensors)
        .all(|name| has(name))
        && needs.numbers.iter().all(|key| whole(key) > 0)
        && needs.zeros.iter().all(|key| number(key) == 0.0)
        && !needs.layers.contains(&layers)
        && whole("leading_dense_block_count") <= layers;
    let hidden_length = whole("embedding_length");
    let is_one_length = [0, hidden_length].contains(&whole("embedding_length_out"));
    (usable && is_one_length && hidden_length > 0).then_some(ModelHeads { hidden_length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::random::{self, Architecture, Spec};
    use crate::gguf::{Gguf, TensorType, Writer};

    /// The heads of a random model whose metadata was changed, or which lost a tensor.
    fn found(
        architecture: Architecture,
        change: impl Fn(&str) -> Option<u32>,
        lost: &str,
    ) -> Option<ModelHeads> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let spec = Spec {
            heads: 1,
            ..random::small(architecture, 1)
        };
        spec.write(&path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let mut writer = Writer::new();
        for (key, value) in gguf.metadata().iter() {
            let known = key.split_once('.').and_then(|(_, rest)| change(rest));
            writer.set(key, known.map_or_else(|| value.clone(), Into::into));
        }
        for tensor in gguf.tensors().iter().filter(|tensor| tensor.name != lost) {
            // What is in them does not matter.
            writer.tensor(&tensor.name, vec![32], TensorType::F32, |out| {
                out.write_all(&[0; 128])
            });
        }
        let path = folder.path().join("changed.gguf");
        writer.write(&path).unwrap();
        find(
            &gguf::Model::open(&path).unwrap(),
            architecture.name(),
            spec.layers + 1,
        )
    }

    const ALL: [Architecture; 3] = [
        Architecture::Glm4Moe,
        Architecture::DeepSeek2,
        Architecture::Qwen35,
    ];

    #[test]
    fn heads_are_found_where_there_are_some() {
        for architecture in ALL {
            let heads = found(architecture, |_| None, "");
            assert_eq!(heads, Some(ModelHeads { hidden_length: 128 }), "{architecture}");
        }
    }

    #[test]
    fn heads_that_llama_cpp_would_abort_on_are_left_out() {
        for architecture in ALL {
            for count in [0, 2] {
                let heads = found(
                    architecture,
                    |key| (key == "nextn_predict_layers").then_some(count),
                    "",
                );
                assert_eq!(heads, None, "{architecture}, {count}");
            }
            for lost in ["eh_proj", "enorm", "hnorm"] {
                let heads = found(architecture, |_| None, &format!("blk.4.nextn.{lost}.weight"));
                assert_eq!(heads, None, "{architecture}, {lost}");
            }
        }
        let of = |key: &'static str, value| {
            found(
                Architecture::DeepSeek2,
                move |known| (known == key).then_some(value),
                "",
            )
        };
        assert_eq!(of("attention.q_lora_rank", 0), None);
        assert_eq!(of("expert_shared_count", 0), None);
        assert_eq!(of("leading_dense_block_count", 5), None);
        for (needs, architecture) in KNOWN.iter().flat_map(|needs| {
            let its = ALL.into_iter().filter(|known| known.name() == needs.architecture);
            its.map(move |architecture| (needs, architecture))
        }) {
            for number in needs.numbers {
                let heads = found(architecture, |key| (key == *number).then_some(0), "");
                assert_eq!(heads, None, "{architecture}, {number}");
            }
            for tensor in needs.tensors {
                let heads = found(architecture, |_| None, &format!("blk.4.{tensor}.weight"));
                assert_eq!(heads, None, "{architecture}, {tensor}");
            }
        }
    }
}
