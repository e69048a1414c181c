//! What llama.cpp makes is accepted.

use std::time::Instant;

use llama_cpp_sys_2 as sys;

use super::capture::{Captured, Run, capture};
use crate::gguf::random::{self, Architecture, Pooling, Spec, WeightType};
use crate::rpc::worker::check::{Refused, check};

fn runs() -> Vec<Run> {
    let plain = Run::default();
    vec![
        plain,
        Run { flash: true, ..plain },
        Run {
            flash: true,
            cache: sys::GGML_TYPE_Q8_0,
            ..plain
        },
        Run {
            flash: true,
            cache: sys::GGML_TYPE_Q4_0,
            sequences: 3,
            ..plain
        },
        Run {
            sequences: 3,
            ..plain
        },
        Run {
            sequences: 3,
            unified: true,
            ..plain
        },
        Run {
            sequences: 2,
            flash: true,
            unified: true,
            cache: sys::GGML_TYPE_F32,
            ..plain
        },
        Run {
            repack: false,
            ..plain
        },
    ]
}

/// Checks a graph and its data.
fn accept(captured: &Captured, name: &str) {
    let checked = check(&captured.graph, &captured.shelf)
        .unwrap_or_else(|refused| panic!("{name}: {refused}\n{}", detail(captured, &refused)));
    for one in &checked.indices {
        let tensor = &captured.graph.tensors[one.tensor as usize];
        let data = captured.data.get(&one.tensor);
        let data = data.unwrap_or_else(|| panic!("{name}: {one:?} was not kept: {tensor:?}"));
        one.check(tensor, data)
            .unwrap_or_else(|fault| panic!("{name}: {fault} {one:?} {tensor:?}"));
    }
    for one in &checked.orders {
        let tensor = &captured.graph.tensors[one.tensor as usize];
        one.check(tensor, &captured.data[&one.tensor])
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

fn detail(captured: &Captured, refused: &Refused) -> String {
    let (Refused::Tensor { tensor, .. } | Refused::Operation { tensor, .. }) = refused else {
        return String::new();
    };
    let tensor = &captured.graph.tensors[*tensor as usize];
    let mut text = format!("{tensor:?}\n");
    for source in tensor.sources.iter().flatten() {
        text += &format!("  {:?}\n", captured.graph.tensors[*source as usize]);
    }
    text
}

fn accept_all(spec: &Spec, run: Run) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    spec.write(&path).unwrap();
    let graphs = capture(&path, run).unwrap_or_default();
    let count = graphs.len();
    for (number, captured) in graphs.into_iter().enumerate() {
        assert!(captured.graph.nodes.len() > 10);
        accept(&captured, &format!("{} {number} {run:?}", spec.architecture));
    }
    count
}

#[test]
fn graphs_of_every_architecture_are_accepted() {
    let mut graphs = 0;
    for architecture in Architecture::ALL {
        for run in runs() {
            let run = Run {
                embeddings: architecture.is_encoder(),
                ..run
            };
            for weight_type in [WeightType::F32, WeightType::Q8_0] {
                let spec = Spec {
                    weight_type,
                    ..random::small(architecture, 7)
                };
                graphs += accept_all(&spec, run);
            }
        }
    }
    println!("{graphs} graphs accepted");
    assert!(graphs > 300);
}

#[test]
fn graphs_of_embeddings_are_accepted() {
    for pooling in [Pooling::Mean, Pooling::Rank] {
        let spec = Spec {
            pooling,
            ..random::small(Architecture::Bert, 3)
        };
        for sequences in [1, 3] {
            let run = Run {
                embeddings: true,
                sequences,
                ..Run::default()
            };
            assert_eq!(accept_all(&spec, run), 1);
        }
    }
}

#[test]
fn a_check_takes_less_than_a_millisecond() {
    let spec = Spec {
        layers: 24,
        ..random::small(Architecture::Qwen3Moe, 1)
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    spec.write(&path).unwrap();
    let graphs = capture(&path, Run::default()).unwrap();
    let best = (0..50)
        .map(|_| {
            let begin = Instant::now();
            check(&graphs[0].graph, &graphs[0].shelf).unwrap();
            begin.elapsed()
        })
        .min()
        .unwrap();
    println!("{} tensors in {best:?}", graphs[0].graph.tensors.len());
    // Ten times what it takes on a free machine.
    assert!(best.as_micros() < 5000, "{best:?}");
}
