//! What is accepted stays within its buffers, whatever was done to it.

use std::collections::HashMap;

use proptest::prelude::*;

use super::Shelf;
use super::builders::built;
use super::capture::{Run, capture};
use super::execute::execute;
use super::mutate::{Dice, extent, isolated, mutate};
use crate::gguf::random::{self, Architecture};
use crate::rpc::graph::{BufferId, Graph};
use crate::rpc::worker::check::{Buffers, Placement, check};

/// Buffers that end where the last of a graph's tensors does.
fn fitted(graph: &Graph) -> Shelf {
    let mut memory: HashMap<BufferId, u64> = HashMap::new();
    for tensor in &graph.tensors {
        if let (Some(place), Some(extent)) = (tensor.place, extent(tensor)) {
            let end = place.offset.saturating_add(extent);
            let size = memory.entry(place.buffer).or_default();
            *size = end.max(*size);
        }
    }
    Shelf {
        memory,
        weights: HashMap::new(),
    }
}

#[test]
fn what_ggml_builds_is_accepted() {
    for (name, graph) in built() {
        check(&graph, &fitted(&graph)).unwrap_or_else(|refused| panic!("{name}: {refused}\n{graph:#?}"));
    }
}

/// The first and the last byte of each tensor that is used.
fn is_within(graph: &Graph, shelf: &Shelf) {
    for node in &graph.nodes {
        let tensor = &graph.tensors[*node as usize];
        let sources = tensor.sources.iter().flatten();
        for index in sources.chain([node]) {
            let tensor = &graph.tensors[*index as usize];
            let extent = extent(tensor).unwrap();
            let Some(place) = tensor.place.filter(|_| extent > 0) else {
                continue;
            };
            let room = match shelf.at(place) {
                Some(Placement::Memory { bytes } | Placement::Weight { bytes, .. }) => bytes,
                // A view of a weight.
                None => continue,
            };
            assert!(extent <= room, "{tensor:?}");
        }
    }
}

proptest! {
    #[test]
    fn an_operation_that_is_accepted_stays_within_its_buffers(seed: u64, which: usize) {
        let all = built();
        let (name, graph) = &all[which % all.len()];
        let shelf = fitted(graph);
        let mut graph = graph.clone();
        mutate(&mut graph, &mut Dice::new(seed));
        if check(&graph, &shelf).is_ok() {
            is_within(&graph, &shelf);
        }
        // Whatever it is, the check ends, and its words can be read.
        if let Err(refused) = check(&graph, &fitted(&graph)) {
            prop_assert!(!refused.to_string().is_empty(), "{}", name);
        }
    }
}

#[test]
fn a_graph_that_is_accepted_stays_within_its_buffers() {
    let directory = tempfile::tempdir().unwrap();
    for architecture in [Architecture::Qwen3Moe, Architecture::GraniteHybrid] {
        let path = directory.path().join("model.gguf");
        random::small(architecture, 5).write(&path).unwrap();
        let captured = capture(&path, Run::default()).unwrap().remove(0);
        let mut accepted = 0;
        for seed in 0..3000 {
            let mut graph = captured.graph.clone();
            mutate(&mut graph, &mut Dice::new(seed));
            if check(&graph, &captured.shelf).is_ok() {
                is_within(&graph, &captured.shelf);
                accepted += 1;
            }
        }
        assert!((20..2500).contains(&accepted), "{accepted}");
    }
}

/// Most graphs that are kept to be changed.
const MOST_GRAPHS: usize = 3000;

/// ggml computes what is accepted, and lives. How many changes are tried, and from which on, is in
/// `GRAPH_CHECK_TRIES`, such as `1000000+5000`.
#[test]
fn what_is_accepted_can_be_computed() {
    let tries = std::env::var("GRAPH_CHECK_TRIES").unwrap_or("4000+0".into());
    let (tries, first) = tries.split_once('+').unwrap();
    let first: u64 = first.parse().unwrap();
    let all = built();
    for (seed, (name, graph)) in (0..).zip(&all) {
        // A bad index or NaN in what is sorted may keep it from being computed.
        assert!((0..20).any(|more| execute(graph, seed + 100 * more)), "{name}");
    }
    let mut computed = 0;
    // What could be computed is changed further.
    let originals = all.len();
    let mut pool: Vec<Graph> = all.into_iter().map(|(_, graph)| graph).collect();
    for seed in first..first + tries.parse::<u64>().unwrap() {
        let mut dice = Dice::new(seed);
        let mut graph = pool[dice.below(pool.len())].clone();
        mutate(&mut graph, &mut dice);
        if std::env::var("GRAPH_CHECK_SHOW").is_ok() {
            eprintln!("TRY {seed} {graph:?}");
        }
        if execute(&graph, seed) {
            computed += 1;
            let place = dice.below(MOST_GRAPHS);
            match pool.get_mut(place) {
                Some(old) if place >= originals => *old = graph,
                Some(_) => {}
                None => pool.push(graph),
            }
        }
    }
    println!("{computed} of {tries} computed");
    assert!(computed > 0);
}

/// Writes what the fuzz target `graph_check` starts from into the folder of that variable.
#[test]
#[ignore = "writes files"]
fn write_corpus() {
    let Ok(folder) = std::env::var("GRAPH_CHECK_CORPUS") else {
        return;
    };
    let folder = std::path::Path::new(&folder);
    let save = |name: &str, graph: &Graph| {
        let bytes = postcard::to_allocvec(graph).unwrap();
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        std::fs::write(folder.join(name), bytes).unwrap();
    };
    for (name, graph) in built() {
        save(&format!("built-{name}"), &graph);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut seen = std::collections::HashSet::new();
    for architecture in Architecture::ALL {
        random::small(architecture, 5).write(&path).unwrap();
        for flash in [false, true] {
            let embeddings = architecture.is_encoder();
            let run = Run {
                flash,
                embeddings,
                sequences: 2,
                ..Run::default()
            };
            for captured in capture(&path, run).unwrap_or_default() {
                for (position, node) in captured.graph.nodes.iter().enumerate() {
                    let tensor = &captured.graph.tensors[*node as usize];
                    let source = |number: usize| {
                        let source = tensor.sources.get(number).copied().flatten()?;
                        let source = &captured.graph.tensors[source as usize];
                        Some((source.element, source.shape.map(|n| n > 1), source.strides[0] > 4))
                    };
                    let kind = (
                        tensor.op,
                        tensor.element,
                        source(0),
                        source(1),
                        tensor.params[0] > 1000,
                    );
                    if !super::super::ops::only_looks(tensor.op) && seen.insert(kind) {
                        let name =
                            format!("{architecture}-{}-{position}", super::super::ops::name(tensor.op));
                        save(&name, &isolated(&captured.graph, position));
                    }
                }
            }
        }
    }
}
