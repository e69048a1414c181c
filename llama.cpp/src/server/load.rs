//! From options to a running engine, or to the reason why not.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sysinfo::System;

use super::engine::task::{Event, Generate, Sampling};
use super::engine::{Engine, EngineParams, ModelFile, PROMPT_ROWS, SlotFiles, embedding_params};
use super::fit::{Demand, Plan, Shortage, Wish, fit};
use super::options::Options;
use super::parent::report;
use super::split::{Arrangement, lost_refused};
use crate::gguf;
use crate::llama::{
    self, ChatTemplates, ContextParams, Device, DeviceKind, DeviceNeed, HOST, Model, ModelParams,
};
use crate::status::{Refusal, Status};

/// Tokens of a step where the user did not say: enough to keep a CPU or GPU busy.
const BATCH: u32 = 512;
/// Requests that may wait for each slot where the user did not say.
const QUEUE_PER_SLOT: u32 = 16;
/// `LLAMA_MAX_LAYERS`: llama.cpp aborts on more.
const MOST_LAYERS: u32 = 512;
/// Taken for the context that a model was trained for where its file does not say.
const CONTEXT_UNKNOWN: u32 = 4096;
/// More context than this no model has, and llama.cpp takes gigabytes to compute what it would need.
const MOST_CONTEXT: u32 = 1 << 24;
/// Memory of a host or device that is left to others, in bytes.
const MARGIN: u64 = 512 << 20;

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The kind of obstacle.
    pub reason: Refusal,
    /// One line for the user.
    pub message: String,
}

fn refused(reason: Refusal, message: impl Into<String>) -> Refused {
    Refused {
        reason,
        message: message.into(),
    }
}

/// An engine that has answered once, and what it took.
#[derive(Debug)]
pub struct Loaded {
    /// The engine.
    pub engine: Engine,
    /// Layers on GPUs.
    pub gpu_layers: u32,
    /// Bytes of weights.
    pub model_bytes: u64,
    /// Bytes of caches and compute buffers.
    pub context_bytes: u64,
}

/// Loads the model and starts its engine, reporting progress to the parent.
///
/// # Errors
/// [`Refused`] with the reason, before anything is loaded where that can be known.
pub fn load(options: &Options) -> Result<Loaded, Refused> {
    report(&Status::Checking);
    let path = &options.model;
    let header = read_header(path)?;
    if let Some(context) = options
        .context
        .filter(|context| !(1..=MOST_CONTEXT).contains(context))
    {
        let message =
            format!("--ctx-size {context} is not possible; give 1 to {MOST_CONTEXT} tokens, or leave it out");
        return Err(refused(Refusal::Arguments, message));
    }
    llama::initialize();
    let mut placed = if options.rpc.is_empty() {
        Placed::Here(choose_devices(&options.devices)?)
    } else {
        Placed::Split(Box::new(Arrangement::find(options, header.layers)?))
    };
    let chosen = choose(options, &header, &mut placed);
    chosen
        .and_then(|(plan, needs)| start(options, header, &placed, plan, &needs))
        .map_err(|refused| placed.blame(refused))
}

/// Loads the model where it was placed.
fn start(
    options: &Options,
    header: Header,
    placed: &Placed,
    plan: Plan,
    needs: &[Demand],
) -> Result<Loaded, Refused> {
    let path = &options.model;
    let model = load_model(options, &header, placed, plan, needs)?;
    if model.is_encoder_decoder() {
        let message = format!(
            "{}: {} models have an encoder and a decoder, which is not supported; try a model with a decoder only",
            path.display(),
            model.architecture()
        );
        return Err(refused(Refusal::Model, message));
    }
    let model = Arc::new(model);
    let templates = ChatTemplates::new(&model, None).or_else(|error| {
        tracing::warn!(%error, "the model's chat template does not parse: ChatML is used in its place");
        ChatTemplates::new(&model, Some("chatml"))
    });
    let templates = templates.map_err(|error| refused(Refusal::Model, error.to_string()))?;
    let engine_params = EngineParams {
        name: options.model_name.clone(),
        file: header.file,
        context: context_params(options, plan),
        queue: options.queue.unwrap_or(plan.slots * QUEUE_PER_SLOT),
        saved: slot_files(options),
        split: placed
            .arrangement()
            .map(|arrangement| arrangement.split().clone()),
    };
    let engine = Engine::start(model.clone(), templates, engine_params)
        .map_err(|error| refused(Refusal::Memory, error.to_string()))?;
    warm_up(&engine)?;
    let model_bytes = engine.model().size_bytes();
    let total = needs.iter().map(|demand| demand.needed).sum::<u64>();
    Ok(Loaded {
        engine,
        gpu_layers: plan.gpu_layers,
        model_bytes,
        context_bytes: total.saturating_sub(model_bytes),
    })
}

/// Where the model's layers go.
#[derive(Debug)]
enum Placed {
    /// On these devices of this machine, and its CPU.
    Here(Vec<Device>),
    /// On several nodes.
    Split(Box<Arrangement>),
}

impl Placed {
    fn arrangement(&self) -> Option<&Arrangement> {
        match self {
            Self::Here(_) => None,
            Self::Split(arrangement) => Some(arrangement),
        }
    }

    /// What failed because a node was lost meanwhile, or has no room just now, may succeed later.
    fn blame(&self, refused: Refused) -> Refused {
        let later = self
            .arrangement()
            .and_then(|arrangement| arrangement.passing(&refused));
        later.unwrap_or(refused)
    }

    fn model_params(&self, gpu_layers: u32) -> ModelParams {
        match self {
            Self::Here(devices) => model_params(devices, gpu_layers),
            Self::Split(arrangement) => arrangement.model_params(),
        }
    }
}

/// Loads the weights, reporting progress to the parent.
fn load_model(
    options: &Options,
    header: &Header,
    placed: &Placed,
    plan: Plan,
    needs: &[Demand],
) -> Result<Model, Refused> {
    let mut last = None;
    let mut tell = |fraction: f64| {
        let percent = (fraction * 100.0) as u8;
        if last.replace(percent) != Some(percent) {
            report(&Status::Loading { percent });
        }
    };
    let params = placed.model_params(plan.gpu_layers);
    let failed = |error: llama::Error| refused(Refusal::Model, error.to_string());
    let Some(arrangement) = placed.arrangement() else {
        return Model::load(&options.model, &params, |fraction| tell(f64::from(fraction))).map_err(failed);
    };
    let embedding = embedding_params(&context_params(options, plan), header.context_train);
    arrangement.open(options, needs, &embedding)?;
    // llama.cpp only hands out the names of the weights, in an instant.
    let model = Model::load(&options.model, &params, |_| {}).map_err(failed)?;
    let total = model.size_bytes().max(1) as f64;
    arrangement
        .split()
        .load(|loaded| tell((loaded as f64 / total).min(1.0)))
        .map_err(|lost| lost_refused(&lost))?;
    Ok(model)
}

/// Where slots are saved, by what their bytes depend on: the model's file, the program, and how the
/// cache is laid out.
fn slot_files(options: &Options) -> Option<SlotFiles> {
    let save = options.slot_save.as_ref()?;
    let metadata = options.model.metadata().ok();
    let identity = format!(
        "{} {} {:?} {:?} {} {} {} {}",
        env!("CARGO_PKG_VERSION"),
        llama::VERSION,
        options.model.canonicalize().ok(),
        metadata.as_ref().and_then(|metadata| metadata.modified().ok()),
        metadata.map_or(0, |metadata| metadata.len()),
        options.cache_type_k,
        options.cache_type_v,
        options.flash_attention,
    );
    Some(SlotFiles::new(save.folder.clone(), save.most_bytes, identity))
}

/// What the choice needs to know of a model.
#[derive(Debug, Clone)]
struct Header {
    layers: u32,
    context_train: u32,
    file: ModelFile,
}

/// Reads the file with our own reader: llama.cpp trusts files more than one should.
fn read_header(path: &Path) -> Result<Header, Refused> {
    let model = gguf::Model::open(path).map_err(|error| match error {
        gguf::Error::Read { .. } | gguf::Error::MissingParts { .. } => {
            refused(Refusal::File, error.to_string())
        }
        _ => refused(Refusal::Model, error.to_string()),
    })?;
    let metadata = model.metadata();
    let wrong = |fault| refused(Refusal::Model, format!("{}: {fault}", path.display()));
    let architecture: &str = metadata.require("general.architecture").map_err(wrong)?;
    if let Some(word) = repeated_word(metadata).map_err(wrong)? {
        let message = format!(
            "{}: tokenizer.ggml.tokens has {word:?} twice: the file is damaged; download it again",
            path.display()
        );
        return Err(refused(Refusal::Model, message));
    }
    let number = |key: &str| {
        metadata
            .get::<u32>(&format!("{architecture}.{key}"))
            .map_err(wrong)
    };
    let layers = number("block_count")?.unwrap_or(0);
    if layers > MOST_LAYERS {
        let message = format!(
            "{}: {architecture}.block_count is {layers}, but llama.cpp knows at most {MOST_LAYERS}",
            path.display()
        );
        return Err(refused(Refusal::Model, message));
    }
    Ok(Header {
        layers,
        context_train: number("context_length")?
            .unwrap_or(CONTEXT_UNKNOWN)
            .min(MOST_CONTEXT),
        file: ModelFile {
            // Where the system does not say, nothing is lost but the date.
            modified: fs::metadata(path).and_then(|about| about.modified()).ok(),
            metadata: scalars(metadata),
        },
    })
}

/// All metadata but lists.
fn scalars(metadata: &gguf::Metadata) -> Vec<(String, gguf::Value)> {
    let scalars = metadata
        .iter()
        .filter(|(_, value)| !matches!(value, gguf::Value::Array(_)));
    scalars
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
}

/// A word that is in the vocabulary twice: llama.cpp aborts on it.
fn repeated_word(metadata: &gguf::Metadata) -> Result<Option<String>, gguf::Fault> {
    let words = metadata
        .get::<&gguf::Array>("tokenizer.ggml.tokens")?
        .and_then(gguf::Array::strings);
    let mut seen = HashSet::new();
    let repeated = words.and_then(|mut words| words.find(|word| !seen.insert(*word)));
    Ok(repeated.map(|word| String::from_utf8_lossy(word).into_owned()))
}

/// The GPUs to use: those named, or all.
fn choose_devices(names: &[String]) -> Result<Vec<Device>, Refused> {
    let all = llama::devices();
    let gpus = || all.iter().filter(|device| device.kind == DeviceKind::Gpu);
    if names.is_empty() {
        return Ok(gpus().cloned().collect());
    }
    let mut chosen = Vec::new();
    for name in names {
        let found = all
            .iter()
            .find(|device| device.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                let known: Vec<&str> = all.iter().map(|device| device.name.as_str()).collect();
                refused(
                    Refusal::Arguments,
                    format!("there is no device {name}; this build finds {}", known.join(", ")),
                )
            })?;
        if found.kind == DeviceKind::Gpu {
            chosen.push(found.clone());
        }
    }
    Ok(chosen)
}

fn model_params(devices: &[Device], gpu_layers: u32) -> ModelParams {
    ModelParams {
        devices: Some(devices.to_vec()),
        gpu_layers: Some(gpu_layers),
        tensor_split: Vec::new(),
    }
}

fn context_params(options: &Options, plan: Plan) -> ContextParams {
    let batch = options.batch_size.unwrap_or(BATCH).max(plan.slots);
    ContextParams {
        context: plan.context,
        batch,
        micro_batch: batch,
        sequences: plan.slots,
        outputs: plan.slots + PROMPT_ROWS,
        threads: options.threads.unwrap_or_else(default_threads),
        cache_type_k: options.cache_type_k,
        cache_type_v: options.cache_type_v,
        flash_attention: options.flash_attention,
        embeddings: None,
    }
}

/// One for each physical core: a second thread on a core slows matrix products down.
pub(crate) fn default_threads() -> u32 {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    let physical = System::physical_core_count().unwrap_or(logical);
    u32::try_from(physical.min(logical)).unwrap_or(1)
}

/// Bytes of the host's memory that can be had, in this container if it is one.
pub(crate) fn free_host_memory() -> u64 {
    // Where the system does not say, nothing is refused for it.
    let Ok(mut system) = System::new() else {
        return u64::MAX;
    };
    system.refresh_memory();
    let available = system.available_memory();
    system
        .cgroup_limits()
        .map_or(available, |limits| available.min(limits.free_memory))
        .saturating_sub(MARGIN)
}

/// Bytes of this machine's memory for a model.
pub(super) fn host_memory(options: &Options) -> u64 {
    free_host_memory().min(options.max_memory.unwrap_or(u64::MAX))
}

/// Chooses what fits, and says what it needs. A split's layers are shared out again where they do not.
fn choose(options: &Options, header: &Header, placed: &mut Placed) -> Result<(Plan, Vec<Demand>), Refused> {
    loop {
        let shortage = match measure(options, header, placed)? {
            Ok(chosen) => {
                if let Placed::Split(arrangement) = placed {
                    arrangement.report();
                }
                return Ok(chosen);
            }
            Err(shortage) => shortage,
        };
        // Each time a node gets less, so this ends.
        let has_room = match placed {
            Placed::Here(_) => false,
            Placed::Split(arrangement) => arrangement.make_room(&shortage.demand),
        };
        if !has_room {
            return Err(too_large(options, &shortage));
        }
    }
}

/// What of the wishes fits where the model is placed, or what is short.
fn measure(
    options: &Options,
    header: &Header,
    placed: &Placed,
) -> Result<Result<(Plan, Vec<Demand>), Shortage>, Refused> {
    let host_free = host_memory(options);
    let measure = |plan: Plan| {
        let model = placed.model_params(plan.gpu_layers);
        let need = llama::memory_need(&options.model, &model, &context_params(options, plan))?;
        let demands: Vec<Demand> = match placed {
            Placed::Here(_) => need
                .devices
                .into_iter()
                .map(|need| demand(need, host_free))
                .collect(),
            Placed::Split(arrangement) => arrangement.demands(&need.devices, host_free),
        };
        for Demand {
            device, needed, free, ..
        } in &demands
        {
            tracing::debug!(device, needed, free, ?plan, "memory");
        }
        Ok(demands)
    };
    // The output layer counts as one.
    let (layers, gpu_layers) = match placed {
        Placed::Here(devices) if devices.is_empty() => (0, Some(0)),
        Placed::Here(_) => (header.layers + 1, options.gpu_layers),
        Placed::Split(_) => (header.layers + 1, Some(header.layers + 1)),
    };
    let wish = Wish {
        context: options.context,
        slots: options.slots,
        gpu_layers,
    };
    fit(wish, header.context_train, layers, measure)
        .map_err(|error: llama::Error| refused(Refusal::Model, error.to_string()))
}

fn demand(need: DeviceNeed, host_free: u64) -> Demand {
    Demand {
        needed: need.total(),
        cache: need.context,
        free: if need.name == HOST {
            host_free
        } else {
            need.free.saturating_sub(MARGIN)
        },
        device: need.name,
    }
}

fn too_large(options: &Options, shortage: &Shortage) -> Refused {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let Shortage { plan, demand } = shortage;
    let mut remedies = vec!["a smaller model or quantization"];
    if options.context.is_some() {
        remedies.insert(0, "a smaller --ctx-size");
    }
    if demand.cache * 4 > demand.needed {
        remedies.insert(0, "--cache-type-k q8_0 --cache-type-v q8_0");
    }
    refused(
        Refusal::Memory,
        format!(
            "{} with a context of {} tokens needs {:.1} GB, {:.1} GB free on {}; try {}",
            options.model_name,
            plan.context,
            gigabytes(demand.needed),
            gigabytes(demand.free),
            demand.device,
            remedies.join(", or "),
        ),
    )
}

/// Ready means that a token went round: pages are read, buffers made, and what would crash did so now.
fn warm_up(engine: &Engine) -> Result<(), Refused> {
    if engine.context() == 0 {
        return Ok(());
    }
    let model = engine.model();
    let task = Generate {
        prompt: vec![model.bos().or(model.eos()).unwrap_or(0)],
        max_tokens: Some(1),
        sampling: Sampling::greedy(),
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
        visible_tokens: Vec::new(),
    };
    let failed = |cause: String| {
        refused(
            Refusal::Model,
            format!("{}: the first token failed: {cause}", engine.name()),
        )
    };
    let mut events = engine
        .generate(task)
        .map_err(|failure| failed(failure.to_string()))?;
    let mut done = false;
    // To the end, where its place in the queue is free again.
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Failed(failure) => return Err(failed(failure.to_string())),
            event => done |= matches!(event, Event::Done(_)),
        }
    }
    if done {
        Ok(())
    } else {
        Err(failed("the engine ended".into()))
    }
}
