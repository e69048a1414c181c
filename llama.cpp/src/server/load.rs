//! From options to a running engine, or to the reason why not.

use std::path::Path;
use std::sync::Arc;

use super::choose::{Chosen, Guessing, choose};
use super::draft::{self, Unfit};
use super::engine::task::{Event, Generate, Sampling};
use super::engine::{Engine, EngineParams, HeadsContext, SlotFiles, SpeculationParams};
use super::fit::Plan;
use super::header::{Header, MOST_CONTEXT, read_header};
use super::measure::{
    Guesser, context_params, draft_params, eagle_model_params, eagle_params, heads_params, model_params,
};
use super::options::{Options, SpeculationMode};
use super::parent::report;
use super::placed::{Placed, choose_devices};
use super::split::{Arrangement, lost_refused};
use crate::llama::{self, ChatTemplates, DeviceNeed, MemoryNeed, Model, ModelParams};
use crate::status::{Refusal, Status};

/// Requests that may wait for each slot where the user did not say.
const QUEUE_PER_SLOT: u32 = 16;
/// Bytes by which what is taken may differ from what was reckoned without a warning: over a network llama.cpp copies a
/// step's hidden states once more.
const UNTOLD: u64 = 64 << 20;

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The kind of obstacle.
    pub reason: Refusal,
    /// One line for the user.
    pub message: String,
}

/// A refusal in these words.
pub(super) fn refused(reason: Refusal, message: impl Into<String>) -> Refused {
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
    /// Of a split, the layers of each node.
    pub node_layers: Vec<u32>,
}

/// Loads the model and starts its engine, reporting progress to the parent.
///
/// # Errors
/// [`Refused`] with the reason, before anything is loaded where that can be known.
pub fn load(options: &Options) -> Result<Loaded, Refused> {
    report(&Status::Checking);
    let path = &options.model;
    let header = read_header(path)?;
    if header.eagle.is_some() {
        let message = format!(
            "{}: it guesses for another model, which --model names; name this one with --draft",
            path.display()
        );
        return Err(refused(Refusal::Model, message));
    }
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
        Placed::Here(choose_devices(options)?)
    } else {
        Placed::Split(Box::new(Arrangement::find(options, header.layers)?))
    };
    let chosen = choose(options, &header, &mut placed);
    chosen
        .and_then(|chosen| start(options, header, &placed, chosen))
        .map_err(|refused| placed.blame(refused))
}

/// Loads the model where it was placed.
fn start(options: &Options, header: Header, placed: &Placed, chosen: Chosen) -> Result<Loaded, Refused> {
    let path = &options.model;
    let model = load_model(options, placed, &chosen)?;
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
    let Chosen {
        plan,
        demands,
        guessing,
        reckoned,
        ..
    } = chosen;
    let speculation = speculation(options, placed, plan, &guessing)?;
    let draft_bytes = speculation.guesser_bytes();
    let node_layers = placed
        .arrangement()
        .map_or_else(Vec::new, Arrangement::layers_of_nodes);
    let engine_params = EngineParams {
        name: options.model_name.clone(),
        file: header.file,
        context: context_params(options, plan, guessing.extra()),
        queue: options.queue.unwrap_or(plan.slots * QUEUE_PER_SLOT),
        saved: slot_files(options, guessing.rollback),
        speculation,
        split: placed
            .arrangement()
            .map(|arrangement| arrangement.split().clone()),
        step_delay: options.step_delay,
    };
    let engine = Engine::start(model.clone(), templates, engine_params)
        .map_err(|error| refused(Refusal::Memory, error.to_string()))?;
    compare(&reckoned, engine.memory_taken());
    warm_up(&engine)?;
    let model_bytes = engine.model().size_bytes() + draft_bytes;
    let total = demands.iter().map(|demand| demand.needed).sum::<u64>();
    Ok(Loaded {
        engine,
        gpu_layers: plan.gpu_layers,
        model_bytes,
        context_bytes: total.saturating_sub(model_bytes),
        node_layers,
    })
}

/// Tells of devices where caches and buffers take more or less than was reckoned before loading: by that the plan
/// was chosen. Weights that are mapped from the file count otherwise, so they are left out.
fn compare(reckoned: &[DeviceNeed], taken: Option<&MemoryNeed>) {
    for taken in taken.into_iter().flat_map(|taken| &taken.devices) {
        let reckoned = reckoned.iter().find(|need| need.name == taken.name);
        let (reckoned, device) = (reckoned.map_or(0, DeviceNeed::without_model), &taken.name);
        let taken = taken.without_model();
        if reckoned.abs_diff(taken) > UNTOLD {
            tracing::warn!(device, reckoned, taken, "memory is taken otherwise than reckoned");
        } else {
            tracing::debug!(device, reckoned, taken, "memory is taken");
        }
    }
}

/// Loads the weights, reporting progress to the parent.
fn load_model(options: &Options, placed: &Placed, chosen: &Chosen) -> Result<Model, Refused> {
    let mut last = None;
    let mut tell = |fraction: f64| {
        let percent = (fraction * 100.0) as u8;
        if last.replace(percent) != Some(percent) {
            report(&Status::Loading { percent });
        }
    };
    let heads = chosen.guessing.guesser.as_ref().and_then(Guesser::heads);
    let params = model_params(placed, chosen.plan, heads);
    let failed = |error: llama::Error| refused(Refusal::Model, error.to_string());
    let Some(arrangement) = placed.arrangement() else {
        return Model::load(&options.model, &params, |fraction| tell(f64::from(fraction))).map_err(failed);
    };
    arrangement.open(&chosen.demands)?;
    // llama.cpp only hands out the names of the weights, in an instant.
    let model = Model::load(&options.model, &params, |_| {}).map_err(failed)?;
    let total = model.size_bytes().max(1) as f64;
    arrangement
        .split()
        .load(|loaded| tell((loaded as f64 / total).min(1.0)))
        .map_err(|lost| lost_refused(&lost))?;
    Ok(model)
}

/// How the engine guesses ahead, its draft model loaded.
fn speculation(
    options: &Options,
    placed: &Placed,
    plan: Plan,
    guessing: &Guessing,
) -> Result<SpeculationParams, Refused> {
    let mut params = SpeculationParams {
        mode: guessing.mode,
        most_window: options.speculation.most_window,
        min_p: options.speculation.min_p.get(),
        windows: options.speculation.windows,
        ..SpeculationParams::off()
    };
    match &guessing.guesser {
        Some(Guesser::Draft(place)) => {
            let model = load_draft(options, &place.path, &place.model)?;
            params.model = model.map(|model| (model, draft_params(options, plan)));
        }
        Some(Guesser::Heads(_)) => {
            // SAFETY: the model's file has heads of a kind that llama.cpp can compute, and they were loaded.
            params.heads = Some(unsafe { HeadsContext::of_model(heads_params(options, plan)) });
        }
        Some(Guesser::Eagle(file)) => {
            let own = eagle_model_params(placed, plan.gpu_layers);
            let eagle = load_draft(options, &file.path, &own)?;
            params.heads = eagle.map(|eagle| {
                let context = eagle_params(options, plan);
                // SAFETY: the file was found to be made for the model.
                unsafe { HeadsContext::of_eagle(eagle, file.eagle.layers.to_vec(), context) }
            });
        }
        None => {}
    }
    if params.mode == SpeculationMode::Draft && params.model.is_none() && params.heads.is_none() {
        params.mode = SpeculationMode::Off;
    }
    Ok(params)
}

/// Loads a draft. `None` where it cannot be, and nobody asked for it.
fn load_draft(options: &Options, path: &Path, params: &ModelParams) -> Result<Option<Arc<Model>>, Refused> {
    match Model::load(path, params, |_| {}) {
        Ok(model) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            tracing::info!("the draft model {file} guesses ahead for {}", options.model_name);
            Ok(Some(Arc::new(model)))
        }
        Err(error) => {
            let unfit = Unfit::File(refused(Refusal::Model, error.to_string()));
            if let Some(draft) = &options.speculation.draft {
                draft::give_up(options, draft, unfit)?;
            }
            Ok(None)
        }
    }
}

/// Where slots are saved, by what their bytes depend on: the model's file, the program, and how the
/// cache is laid out.
fn slot_files(options: &Options, rollback: u32) -> Option<SlotFiles> {
    let save = options.slot_save.as_ref()?;
    let metadata = options.model.metadata().ok();
    let identity = format!(
        "{} {} {:?} {:?} {} {} {} {} {rollback}",
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
        prediction: Vec::new(),
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
