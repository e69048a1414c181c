//! A GPU as a part of one machine, of a split and of a mesh: the real binary on a Vulkan device, which may be one of
//! software. `just test-gpu` runs these.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../support/answers.rs"]
mod answers;
#[path = "../blackbox/harness/mod.rs"]
#[allow(dead_code, unused_imports)]
mod harness;

use answers::answers;
use harness::{DEADLINE, Kind, Start, Worker, eventually, model};
use serde_json::Value;

/// What ggml calls the first one.
const GPU: &str = "Vulkan0";

/// Software devices are used only where they are named.
fn with_gpu(start: Start) -> Start {
    start.variable("GGML_VK_VISIBLE_DEVICES", "0")
}

fn serving() -> Start {
    with_gpu(Start::model(model(Kind::Endless)))
        .flag("--ctx-size", "1024")
        .flag("--parallel", "2")
        .flag("--speculate", "off")
}

fn worker() -> Start {
    with_gpu(Worker::plain()).flag("--model-dir", model(Kind::Endless).parent().unwrap())
}

/// A daemon over this worker.
fn over(worker: &Worker, start: &Start) -> Start {
    serving()
        .flag("--rpc", &worker.address)
        .flag("--rpc-secret-file", start.home_path().join("rpc-secret"))
        .word("-v")
}

/// What `mesh-llm devices` says of it.
fn gpu() -> Value {
    let told = with_gpu(Start::bare().word("devices"))
        .flag("--log-format", "json")
        .ended();
    assert_eq!(told.code, Some(0), "{:?}", told.err);
    let mut devices = told
        .out
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    devices
        .find(|device| device["name"] == GPU)
        .unwrap_or_else(|| panic!("no {GPU} in {:?}: install mesa-vulkan-drivers, say", told.out))
}

#[test]
fn devices_tells_what_a_gpu_has_and_reads() {
    let gpu = gpu();
    assert_eq!(gpu["memory"], "own", "{gpu}");
    for number in ["total", "free", "bandwidth"] {
        assert!(gpu[number].as_u64().unwrap() > 0, "{gpu}");
    }
}

#[test]
fn a_model_takes_no_more_of_a_gpu_than_it_may() {
    let free = serving().ready();
    free.process.err.line("layers on the GPU", DEADLINE);
    let kept = serving().flag("--max-vram", "0.000001").ready();
    kept.process.err.line("on the CPU", DEADLINE);
}

#[test]
fn gpus_of_host_and_worker_answer_as_one_does() {
    let alone = answers(&serving().ready());
    let start = worker();
    let worker = Worker::start(&start);
    for (shares, parts) in [
        ("2,0,2", &["Vulkan0@first layers", "Vulkan0@127.0.0.1"][..]),
        (
            "1,1,2",
            &["Vulkan0@first layers", "CPU@first layers", "Vulkan0@127.0.0.1"],
        ),
    ] {
        let host = over(&worker, &start).flag("--tensor-split", shares).ready();
        let lines = host.process.err.so_far();
        for part in parts.iter().chain(&["Vulkan0@output"]) {
            assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
        }
        assert_eq!(answers(&host), alone, "{shares}");
    }
}

#[test]
fn a_host_told_to_leave_its_gpu_alone_computes_on_its_processor() {
    let start = worker();
    let worker = Worker::start(&start);
    let host = over(&worker, &start)
        .flag("--gpu-layers", "0")
        .flag("--tensor-split", "2,2")
        .ready();
    let lines = host.process.err.so_far();
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(
        has("CPU@first layers") && has("CPU@output") && !has("Vulkan0@first"),
        "{lines:#?}"
    );
}

#[test]
fn the_mesh_is_offered_the_gpu_up_to_its_limit() {
    let total = gpu()["total"].as_u64().unwrap();
    let offered = |limit: Option<&str>| {
        let start = serving()
            .variable("MESH_LLM_NO_MESH", "0")
            .flag("--max-memory", "2");
        let start = match limit {
            Some(gigabytes) => start.flag("--max-vram", gigabytes),
            None => start,
        };
        let daemon = start.ready();
        let home = daemon.home().to_owned();
        eventually("its status", DEADLINE, || {
            let told = Start::bare().home(&home).word("status").word("--json").ended();
            let status: Value = serde_json::from_str(told.out.first()?).ok()?;
            let names = status["this"]["devices"].as_array()?.iter();
            let names: Vec<&str> = names.filter_map(|device| device["name"].as_str()).collect();
            assert_eq!(names, [GPU, "CPU"], "{status}");
            status["this"]["memory"]["offered_bytes"].as_u64()
        })
    };
    assert_eq!(offered(None), 2_000_000_000 + total);
    assert_eq!(offered(Some("1.5")), 3_500_000_000);
}
