//! Workers and splits for tests.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::gguf::random::{self, Architecture};
use crate::llama::{self, Batch, Context, ContextParams, Model, ModelParams};
use crate::rpc::client::{Patience, Role, Split, SplitError};
use crate::rpc::dial::Secret;
use crate::rpc::files::{Library, Memory, WeightFile};
use crate::rpc::worker::{Device, ModelSource, Worker, WorkerParams};
use crate::server::engine::pipeline::{Pipeline, Submitted};
use crate::server::options::{CacheType, FlashAttention};

/// Whatever a test waits for comes sooner; a fuzzer is slow, and leaves the machine to others.
pub const DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 60 });

/// A device of this machine with so many bytes to offer.
pub fn cpu(bytes: u64) -> Arc<Device> {
    llama::initialize();
    let cpu = llama::devices()
        .into_iter()
        .find(|device| device.kind == llama::DeviceKind::Cpu)
        .unwrap();
    Arc::new(Device::new(cpu, 1, bytes).unwrap())
}

/// What hosts and workers share.
pub const SECRET: &str = "a secret for tests";

pub fn secret() -> Secret {
    Secret::new(SECRET.as_bytes()).unwrap()
}

/// Starts a worker that knows the models in `folder`; its address.
pub fn worker(folder: &Path) -> String {
    worker_with(cpu(1 << 30), folder)
}

/// Starts a worker with this device.
pub fn worker_with(device: Arc<Device>, folder: &Path) -> String {
    worker_of(vec![device], folder)
}

/// Starts a worker with these devices.
pub fn worker_of(devices: Vec<Arc<Device>>, folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let params = WorkerParams {
        devices,
        library: Library::new([folder], Memory::in_process()).unwrap(),
        dialler: secret().into(),
    };
    let worker = Worker::new(listener, params);
    thread::spawn(move || worker.serve());
    address
}

/// Waits until `ready` gives something; how long that took.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> (T, Duration) {
    let begin = Instant::now();
    loop {
        if let Some(value) = ready() {
            return (value, begin.elapsed());
        }
        assert!(begin.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Waits until a device has all of its memory again.
pub fn until_free(device: &Device) -> Duration {
    let free = || {
        let offer = device.offer();
        (offer.free == offer.total).then_some(())
    };
    eventually("a worker's memory comes back", free).1
}

/// A model of random weights.
pub struct Sample {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl Sample {
    pub fn new(architecture: Architecture) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        random::small(architecture, 7).write(&path).unwrap();
        Self { folder, path }
    }
}

pub fn context_params(cache: CacheType) -> ContextParams {
    ContextParams {
        context: 512,
        batch: 64,
        micro_batch: 64,
        sequences: 4,
        outputs: 64,
        rollback: 0,
        threads: 1,
        cache_type_k: cache,
        cache_type_v: cache,
        flash_attention: FlashAttention::Auto,
        embeddings: None,
    }
}

pub fn solo(path: &Path, params: ContextParams) -> Pipeline<()> {
    let model_params = ModelParams {
        devices: Some(Vec::new()),
        gpu_layers: Some(0),
        ..ModelParams::default()
    };
    let model = Arc::new(Model::load(path, &model_params, |_| {}).unwrap());
    Pipeline::new(Context::new(model, params).unwrap())
}

/// A split over the host and workers; `layers` is the host's first layers, each worker's, and 0 at the end
/// where the last worker's last one is to be the head.
pub fn split(path: &Path, params: ContextParams, workers: &[String], layers: &[u32]) -> Pipeline<()> {
    try_split(path, params, workers, layers, 256 << 20).unwrap()
}

/// As [`split`], with so many bytes reserved on each worker. Where a node is lost the error is that.
pub fn try_split(
    path: &Path,
    params: ContextParams,
    workers: &[String],
    layers: &[u32],
    reserve: u64,
) -> Result<Pipeline<()>, SplitError> {
    split_with(path, params, workers, layers, reserve, Patience::default())
}

/// As [`try_split`], with this patience.
pub fn split_with(
    path: &Path,
    params: ContextParams,
    workers: &[String],
    layers: &[u32],
    reserve: u64,
    patience: Patience,
) -> Result<Pipeline<()>, SplitError> {
    let own = vec![cpu(u64::MAX / 2)];
    split_of(own, path, params, workers, layers, reserve, patience)
}

/// As [`split_with`], with these devices of the host's own, for each of which `layers` has a number.
pub fn split_of(
    own: Vec<Arc<Device>>,
    path: &Path,
    params: ContextParams,
    workers: &[String],
    layers: &[u32],
    reserve: u64,
    patience: Patience,
) -> Result<Pipeline<()>, SplitError> {
    let file = WeightFile::open(path).unwrap();
    let identity = file.identify(&Memory::in_process()).unwrap();
    let split = Split::dial(workers, &secret().into(), own, patience)?;
    let members = split.members();
    let mut shares: Vec<u32> = layers.to_vec();
    shares.resize(members.len(), 1);
    let reserve: Vec<u64> = members
        .iter()
        .zip(&shares)
        .map(|(member, share)| match member.role {
            Role::Worker(_) if *share > 0 => reserve,
            _ => 0,
        })
        .collect();
    split.open(&reserve, &ModelSource::new(Some(file)), &identity)?;
    let used = || members.iter().zip(&shares).filter(|(_, share)| **share > 0);
    let model_params = ModelParams {
        devices: Some(used().map(|(member, _)| member.device.clone()).collect()),
        gpu_layers: Some(shares.iter().sum()),
        tensor_split: used().map(|(_, share)| *share as f32).collect(),
        ..ModelParams::default()
    };
    // llama.cpp fails where a node was lost meanwhile, and only then.
    let lost = || SplitError::Lost(split.shared().lost().expect("a node was lost"));
    let model = Arc::new(Model::load(path, &model_params, |_| {}).map_err(|_| lost())?);
    split.load(|_| {})?;
    let context = Context::new(model, params).map_err(|_| lost())?;
    let pipeline = Pipeline::over(context, split);
    Ok(pipeline)
}

/// Sends a step on its way: tokens, positions, sequences, whether logits are wanted.
pub fn submit(pipeline: &mut Pipeline<()>, tokens: &[(i32, u32, i32, bool)]) {
    let mut batch = Batch::default();
    for (token, position, sequence, output) in tokens {
        batch.push(*token, *position, *sequence, *output);
    }
    match pipeline.submit(&mut batch, ()) {
        Submitted::InFlight(_) => {}
        other => panic!("{other:?}"),
    }
}

/// The logits of the oldest step, for those of its tokens that wanted some.
pub fn take(pipeline: &mut Pipeline<()>, tokens: usize) -> Vec<Vec<f32>> {
    let finished = pipeline.take().unwrap();
    finished.outcome.unwrap();
    (0..tokens)
        .filter_map(|index| pipeline.context().logits(index).map(<[f32]>::to_vec))
        .collect()
}

/// What is kept of a fuzz target's inputs, in the order of their names.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let files = folder.read_dir().unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}
