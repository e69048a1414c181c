//! A split computes what one node computes.

use super::lab::{self, Sample};
use crate::gguf::random::Architecture;
use crate::rpc::client::Patience;
use crate::rpc::wire::Step;
use crate::server::engine::pipeline::Pipeline;
use crate::server::options::CacheType;

type Tokens = Vec<(i32, u32, i32, bool)>;

/// Prompts of two sequences, then both of them token by token.
fn steps() -> Vec<Tokens> {
    let token = |n: u32| 20 + (n * 7919 % 200) as i32;
    let mut steps = Vec::new();
    let prompt = |sequence: i32, length: u32| -> Tokens {
        (0..length)
            .map(|n| (token(n + 3 * sequence as u32), n, sequence, n + 1 == length))
            .collect()
    };
    steps.push(prompt(0, 23));
    steps.push(prompt(1, 40));
    for n in 0..24 {
        steps.push(vec![
            (token(100 + n), 23 + n, 0, true),
            (token(500 + n), 40 + n, 1, true),
        ]);
    }
    steps
}

/// All logits, every step being on its way before the first is taken where `ahead` says so.
fn run(mut pipeline: Pipeline<()>, ahead: bool) -> Vec<Vec<f32>> {
    let steps = steps();
    let mut logits = Vec::new();
    if ahead {
        steps.iter().for_each(|step| lab::submit(&mut pipeline, step));
    }
    for step in &steps {
        if !ahead {
            lab::submit(&mut pipeline, step);
        }
        logits.extend(lab::take(&mut pipeline, step.len()));
    }
    logits
}

fn greatest_difference(left: &[Vec<f32>], right: &[Vec<f32>]) -> f32 {
    assert_eq!(left.len(), right.len());
    let pairs = left.iter().flatten().zip(right.iter().flatten());
    pairs
        .map(|(left, right)| (left - right).abs())
        .fold(0.0, f32::max)
}

#[test]
fn a_host_and_a_worker_of_several_devices_compute_the_same_though_one_is_full() {
    let sample = Sample::new(Architecture::Llama);
    let params = lab::context_params(CacheType::F32);
    let solo = run(lab::solo(&sample.path, params.clone()), false);
    let (full, roomy) = (lab::cpu(0), lab::cpu(1 << 30));
    let worker = lab::worker_of(vec![full, roomy.clone()], sample.folder.path());
    let own = || vec![lab::cpu(u64::MAX / 2), lab::cpu(u64::MAX / 2)];
    for shares in [[1, 1, 0, 2], [0, 1, 0, 3], [1, 0, 0, 3]] {
        let workers = std::slice::from_ref(&worker);
        let patience = Patience::default();
        let split = lab::split_of(
            own(),
            &sample.path,
            params.clone(),
            workers,
            &shares,
            256 << 20,
            patience,
        );
        assert_eq!(
            greatest_difference(&solo, &run(split.unwrap(), true)),
            0.0,
            "{shares:?}"
        );
        lab::until_free(&roomy);
    }
}

fn check(architecture: Architecture, cache: CacheType) {
    let sample = Sample::new(architecture);
    let params = lab::context_params(cache);
    let solo = run(lab::solo(&sample.path, params.clone()), false);
    let workers = [
        lab::worker(sample.folder.path()),
        lab::worker(sample.folder.path()),
    ];
    let layers = crate::gguf::Model::open(&sample.path).unwrap();
    let name = architecture.name();
    let layers: u32 = layers
        .metadata()
        .get(&format!("{name}.block_count"))
        .unwrap()
        .unwrap();
    for shares in [vec![1, layers - 1], vec![0, layers], vec![layers - 1, 1]] {
        for ahead in [false, true] {
            let split = run(
                lab::split(&sample.path, params.clone(), &workers[..1], &shares),
                ahead,
            );
            let difference = greatest_difference(&solo, &split);
            assert_eq!(difference, 0.0, "{name}, {cache}, {shares:?}, ahead: {ahead}");
        }
    }
    let shares = [1, layers - 2, 1];
    let split = run(lab::split(&sample.path, params.clone(), &workers, &shares), true);
    assert_eq!(
        greatest_difference(&solo, &split),
        0.0,
        "{name}, {cache}, three nodes"
    );
    // The head away from a host that computes some layers, and from one that computes nothing at all.
    for shares in [[1, 1, layers - 1, 0], [0, 1, layers, 0]] {
        let split = run(lab::split(&sample.path, params.clone(), &workers, &shares), true);
        let difference = greatest_difference(&solo, &split);
        assert_eq!(difference, 0.0, "{name}, {cache}, head on a worker, {shares:?}");
    }
}

#[test]
fn a_worker_without_the_file_computes_the_same() {
    let sample = Sample::new(Architecture::Qwen3);
    let params = lab::context_params(CacheType::F16);
    let solo = run(lab::solo(&sample.path, params.clone()), false);
    let nothing = tempfile::tempdir().unwrap();
    let workers = [lab::worker(nothing.path())];
    let split = run(lab::split(&sample.path, params, &workers, &[1, 3]), true);
    assert_eq!(greatest_difference(&solo, &split), 0.0);
}

#[test]
fn a_cancelled_step_is_not_computed_and_those_behind_it_are() {
    let sample = Sample::new(Architecture::Llama);
    let params = lab::context_params(CacheType::F16);
    let workers = [lab::worker(sample.folder.path())];
    let mut split = lab::split(&sample.path, params.clone(), &workers, &[2, 2]);
    split.split().unwrap().cancel(Step(1), Step(1));
    let steps = steps();
    lab::submit(&mut split, &steps[0]);
    assert_eq!(lab::take(&mut split, steps[0].len()), Vec::<Vec<f32>>::new());
    assert!(split.context().truncate(0, 0));
    let solo = run(lab::solo(&sample.path, params), false);
    assert_eq!(greatest_difference(&solo, &run(split, true)), 0.0);
}

#[test]
fn what_is_read_after_a_step_is_not_cancelled_with_it() {
    let sample = Sample::new(Architecture::Llama);
    let workers = [lab::worker(sample.folder.path())];
    let mut split = lab::split(
        &sample.path,
        lab::context_params(CacheType::F16),
        &workers,
        &[2, 2],
    );
    let steps = steps();
    lab::submit(&mut split, &steps[0]);
    lab::take(&mut split, steps[0].len());
    let before = split.save(0, 1 << 24).unwrap();
    split.split().unwrap().cancel(Step(1), Step(1));
    assert_eq!(split.save(0, 1 << 24).unwrap(), before);
}

macro_rules! architectures {
    ($($test:ident = $architecture:ident, $cache:ident;)+) => {
        $(
            #[test]
            fn $test() {
                check(Architecture::$architecture, CacheType::$cache);
            }
        )+
    };
}

architectures! {
    llama_split_is_llama = Llama, F16;
    llama_with_a_quantized_cache = Llama, Q8_0;
    qwen2_split_is_qwen2 = Qwen2, F16;
    qwen3_split_is_qwen3 = Qwen3, F16;
    qwen3moe_split_is_qwen3moe = Qwen3Moe, F16;
    gemma3_split_is_gemma3 = Gemma3, F16;
    phi3_split_is_phi3 = Phi3, F16;
    deepseek2_split_is_deepseek2 = DeepSeek2, F16;
    glm4moe_split_is_glm4moe = Glm4Moe, F16;
    gpt_oss_split_is_gpt_oss = GptOss, F16;
    mamba_split_is_mamba = Mamba, F32;
    granite_hybrid_split_is_granite_hybrid = GraniteHybrid, F16;
}
