//! What a plan takes of each memory: llama.cpp computes it without allocating anything.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use sysinfo::System;

use super::eagle::EagleFile;
use super::engine::{PROMPT_ROWS, embedding_params};
use super::fit::{Demand, Plan};
use super::heads::ModelHeads;
use super::options::{CacheType, FlashAttention, Options};
use super::placed::Placed;
use super::room::Room;
use crate::llama::{
    self, ContextParams, DeviceNeed, Graph, HOST, HeadLayers, MemoryNeed, ModelParams, Outline,
};

/// Tokens of a step where the user did not say: enough to keep a CPU or GPU busy.
const BATCH: u32 = 512;

/// What guessing ahead takes beside the model itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extra<'a> {
    /// Tokens of a window; 0: nothing is guessed.
    pub(super) window: u32,
    /// Tokens by which a recurrent state can be cut back.
    pub(super) rollback: u32,
    /// What guesses beside copying.
    pub(super) guesser: Option<&'a Guesser>,
}

impl Extra<'_> {
    /// Heads of the model itself, if they guess.
    fn heads(&self) -> Option<ModelHeads> {
        self.guesser.and_then(Guesser::heads)
    }
}

/// What guesses beside copying.
#[derive(Debug, Clone)]
pub(super) enum Guesser {
    /// A draft model.
    Draft(DraftPlace),
    /// Heads of the model itself.
    Heads(ModelHeads),
    /// A head from a file of its own.
    Eagle(EagleFile),
}

impl Guesser {
    /// Heads of the model itself, if it is they.
    pub(super) fn heads(&self) -> Option<ModelHeads> {
        match self {
            Self::Heads(heads) => Some(*heads),
            Self::Draft(_) | Self::Eagle(_) => None,
        }
    }
}

/// A draft model, and where it computes.
#[derive(Debug, Clone)]
pub(super) struct DraftPlace {
    /// Its file.
    pub(super) path: PathBuf,
    /// The devices.
    pub(super) model: ModelParams,
}

/// Asks llama.cpp, each question once. Of each file it keeps the outline that it read last: a large vocabulary
/// takes a tenth of a second.
pub(super) struct Measure<'a> {
    options: &'a Options,
    placed: &'a Placed,
    room: Room,
    outlines: Vec<(Place, Rc<Outline>)>,
    known: Vec<(Place, ContextParams, Graph, MemoryNeed)>,
}

/// A file, and where its layers would be.
#[derive(Clone, PartialEq)]
struct Place {
    path: PathBuf,
    devices: Vec<String>,
    gpu_layers: Option<u32>,
    heads: HeadLayers,
}

impl Place {
    fn new(path: &Path, model: &ModelParams) -> Self {
        let devices = model.devices.iter().flatten();
        Self {
            path: path.to_owned(),
            devices: devices.map(|device| device.name.clone()).collect(),
            gpu_layers: model.gpu_layers,
            heads: model.heads,
        }
    }
}

impl<'a> Measure<'a> {
    pub(super) fn new(options: &'a Options, placed: &'a Placed) -> Self {
        Self {
            options,
            placed,
            room: Room::now(options),
            outlines: Vec::new(),
            known: Vec::new(),
        }
    }

    /// What each memory must hold, the draft model's share included.
    ///
    /// # Errors
    /// Where llama.cpp cannot use a file.
    pub(super) fn demands(&mut self, plan: Plan, extra: Extra<'_>) -> Result<Vec<Demand>, llama::Error> {
        let slots = context_params(self.options, plan, extra);
        let devices = self.need(plan, extra, slots.clone())?;
        let mut demands = match self.placed {
            Placed::Here(_) => devices.into_iter().map(|need| demand(need, &self.room)).collect(),
            Placed::Split(arrangement) => {
                // Its context is made when the first text is to be embedded, and must not find the room taken.
                let model = model_params(self.placed, plan, extra.heads());
                let outline = self.outline(&self.options.model, &model)?;
                let embedder = embedding_params(&slots, outline.model());
                arrangement.demands(&devices, &self.need(plan, extra, embedder)?)
            }
        };
        if let Some(guesser) = extra.guesser {
            for need in self.need_of(guesser, plan, slots)? {
                add(&mut demands, demand(need, &self.room));
            }
        }
        Ok(demands)
    }

    /// What a guesser needs of each device, beside a model with such a context.
    fn need_of(
        &mut self,
        guesser: &Guesser,
        plan: Plan,
        slots: ContextParams,
    ) -> Result<Vec<DeviceNeed>, llama::Error> {
        match guesser {
            Guesser::Draft(draft) => {
                let context = draft_params(self.options, plan);
                let need = self.ask(&draft.path, &draft.model, context, Graph::Model)?;
                Ok(need.devices)
            }
            Guesser::Heads(heads) => {
                let context = heads_params(self.options, plan);
                let states = hidden_states(*heads, &context);
                let model = model_params(self.placed, plan, Some(*heads));
                let need = self.ask(&self.options.model, &model, context, Graph::Heads)?;
                let more = |need: DeviceNeed| DeviceNeed {
                    // The model is there once.
                    model: 0,
                    compute: need.compute + states,
                    ..need
                };
                Ok(need.devices.into_iter().map(more).collect())
            }
            Guesser::Eagle(file) => self.need_of_eagle(file, plan, slots.batch),
        }
    }

    /// What an EAGLE-3 head needs, beside a model that computes so many tokens at once.
    fn need_of_eagle(
        &mut self,
        file: &EagleFile,
        plan: Plan,
        batch: u32,
    ) -> Result<Vec<DeviceNeed>, llama::Error> {
        let context = eagle_params(self.options, plan);
        let (in_graph, on_host) = (
            file.eagle.graph_bytes(batch),
            file.eagle.host_bytes(batch, context.batch),
        );
        let model = model_params(self.placed, plan, None);
        let target = self.outline(&self.options.model, &model)?;
        let own = eagle_model_params(self.placed, plan.gpu_layers);
        let outline = self.outline(&file.path, &own)?;
        // It may need the model's matrices, so what it takes depends on where they are.
        let place = Place::new(&self.options.model, &model);
        let need = self.known(place, context, Graph::Eagle, |context| {
            outline.need_beside(context, &target)
        })?;
        let more = |need: DeviceNeed| DeviceNeed {
            compute: need.compute + in_graph + if need.name == HOST { on_host } else { 0 },
            ..need
        };
        Ok(need.devices.into_iter().map(more).collect())
    }

    /// What the model and such a context would need of each device.
    ///
    /// # Errors
    /// As [`Self::demands`].
    pub(super) fn need(
        &mut self,
        plan: Plan,
        extra: Extra<'_>,
        context: ContextParams,
    ) -> Result<Vec<DeviceNeed>, llama::Error> {
        let model = model_params(self.placed, plan, extra.heads());
        Ok(self
            .ask(&self.options.model, &model, context, Graph::Model)?
            .devices)
    }

    /// A model without its weights, as it would be placed.
    ///
    /// # Errors
    /// Where llama.cpp cannot use the file.
    pub(super) fn outline(&mut self, path: &Path, model: &ModelParams) -> Result<Rc<Outline>, llama::Error> {
        let place = Place::new(path, model);
        if let Some((_, outline)) = self.outlines.iter().find(|(known, _)| *known == place) {
            return Ok(outline.clone());
        }
        let outline = Rc::new(Outline::load(path, model)?);
        self.outlines.retain(|(known, _)| known.path != path);
        self.outlines.push((place, outline.clone()));
        Ok(outline)
    }

    fn ask(
        &mut self,
        path: &Path,
        model: &ModelParams,
        context: ContextParams,
        graph: Graph,
    ) -> Result<MemoryNeed, llama::Error> {
        let outline = self.outline(path, model)?;
        self.known(Place::new(path, model), context, graph, |context| {
            outline.need(context, graph)
        })
    }

    /// What is known of a question, or is found out now.
    fn known(
        &mut self,
        place: Place,
        context: ContextParams,
        graph: Graph,
        find: impl FnOnce(&ContextParams) -> Result<MemoryNeed, llama::Error>,
    ) -> Result<MemoryNeed, llama::Error> {
        let asked = (&place, &context, graph);
        let mut known = self
            .known
            .iter()
            .filter(|(known, with, of, _)| (known, with, *of) == asked);
        if let Some((.., need)) = known.next() {
            return Ok(need.clone());
        }
        let need = find(&context)?;
        self.known.push((place, context, graph, need.clone()));
        Ok(need)
    }
}

/// Adds what one model needs of a memory to what others do.
fn add(demands: &mut Vec<Demand>, more: Demand) {
    match demands.iter_mut().find(|demand| demand.device == more.device) {
        Some(demand) => {
            demand.needed += more.needed;
            demand.cache += more.cache;
        }
        None => demands.push(more),
    }
}

fn demand(need: DeviceNeed, room: &Room) -> Demand {
    Demand {
        needed: need.total(),
        cache: need.context,
        free: room.of(&need.name),
        device: need.name,
    }
}

/// The context of the slots.
pub(super) fn context_params(options: &Options, plan: Plan, extra: Extra<'_>) -> ContextParams {
    let batch = options.batch_size.unwrap_or(BATCH).max(plan.slots);
    ContextParams {
        context: plan.context,
        batch,
        micro_batch: batch,
        sequences: plan.slots,
        // Beside a token's own row, each guess after it has one.
        outputs: plan.slots * (extra.window + 1) + PROMPT_ROWS,
        rollback: extra.rollback,
        threads: options.threads.unwrap_or_else(default_threads),
        cache_type_k: options.cache_type_k,
        cache_type_v: options.cache_type_v,
        flash_attention: options.flash_attention,
        embeddings: None,
    }
}

/// The model, with its heads or without.
pub(super) fn model_params(placed: &Placed, plan: Plan, heads: Option<ModelHeads>) -> ModelParams {
    ModelParams {
        heads: match heads {
            Some(_) => HeadLayers::Loaded,
            None => HeadLayers::LeftOut,
        },
        ..placed.model_params(plan.gpu_layers)
    }
}

/// The context of the model's heads, whose cache is like the model's.
pub(super) fn heads_params(options: &Options, plan: Plan) -> ContextParams {
    ContextParams {
        outputs: plan.slots,
        ..context_params(options, plan, Extra::default())
    }
}

/// Bytes of hidden states, which llama.cpp does not count: those of a whole step where they are computed, in the
/// model's context and that of the heads, and where both keep them.
fn hidden_states(heads: ModelHeads, context: &ContextParams) -> u64 {
    const PLACES: u64 = 4;
    PLACES * u64::from(context.batch) * u64::from(heads.hidden_length) * size_of::<f32>() as u64
}

/// The context of the draft model: room for what the slots have, in numbers that every model can take.
pub(super) fn draft_params(options: &Options, plan: Plan) -> ContextParams {
    ContextParams {
        outputs: plan.slots,
        cache_type_k: CacheType::default(),
        cache_type_v: CacheType::default(),
        flash_attention: FlashAttention::default(),
        ..context_params(options, plan, Extra::default())
    }
}

/// Most tokens that an EAGLE-3 head computes at once: llama.cpp's graph of it gives a row of logits for each.
const EAGLE_BATCH: u32 = 128;

/// The context of an EAGLE-3 head, which gives a row of logits for each token.
pub(super) fn eagle_params(options: &Options, plan: Plan) -> ContextParams {
    let params = draft_params(options, plan);
    let batch = params.batch.min(EAGLE_BATCH).max(plan.slots);
    ContextParams {
        batch,
        micro_batch: batch,
        outputs: batch,
        ..params
    }
}

/// An EAGLE-3 head is where the model's output layer is, of which it may make use: on the model's devices where any of
/// its layers are there.
pub(super) fn eagle_model_params(placed: &Placed, gpu_layers: u32) -> ModelParams {
    const ALL: u32 = u32::MAX;
    placed.model_params(if gpu_layers > 0 { ALL } else { 0 })
}

/// One for each physical core: a second thread on a core slows matrix products down.
pub(crate) fn default_threads() -> u32 {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    let physical = System::physical_core_count().unwrap_or(logical);
    u32::try_from(physical.min(logical)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::header::read_header;
    use super::super::options::Listen;
    use super::*;
    use crate::gguf;
    use crate::gguf::random::{self, Architecture, Spec, Words};
    use crate::llama::{Batch, Context, Model};

    const PLAN: Plan = Plan {
        context: 4096,
        slots: 4,
        gpu_layers: 0,
    };

    /// What is reckoned for the guesser beside the model itself, all on this machine's processor.
    fn counted_more(options: &Options, extra: Extra<'_>) -> u64 {
        let placed = Placed::Here(Vec::new());
        let counted = |extra| -> u64 {
            let demands = Measure::new(options, &placed).demands(PLAN, extra).unwrap();
            demands.iter().map(|demand| demand.needed).sum()
        };
        let alone = Extra {
            guesser: None,
            ..extra
        };
        counted(extra) - counted(alone)
    }

    /// All heads that are known, and what llama.cpp really takes for them.
    #[test]
    fn what_heads_take_is_counted() {
        for architecture in [
            Architecture::Glm4Moe,
            Architecture::DeepSeek2,
            Architecture::Qwen35,
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model.gguf");
            let spec = Spec {
                heads: 1,
                ..random::small(architecture, 1)
            };
            spec.write(&path).unwrap();
            let options = Options::new(
                Listen::Tcp(([127, 0, 0, 1], 0).into()),
                path.clone(),
                "model".into(),
            );
            let placed = Placed::Here(Vec::new());
            let plan = PLAN;
            let heads = read_header(&path).unwrap().heads;
            let guesser = heads.map(Guesser::Heads);
            let extra = Extra {
                window: 8,
                guesser: guesser.as_ref(),
                ..Extra::default()
            };
            llama::initialize();
            let more = counted_more(&options, extra);

            let taken = |heads: Option<ModelHeads>| -> u64 {
                let params = model_params(&placed, plan, heads);
                let model = Arc::new(Model::load(&path, &params, |_| {}).unwrap());
                let mut target = Context::new(model, context_params(&options, plan, extra)).unwrap();
                let mut batch = Batch::default();
                // SAFETY: they were loaded, and are of a kind that llama.cpp knows.
                let guesser =
                    heads.map(|_| unsafe { target.of_heads(heads_params(&options, plan)) }.unwrap());
                let guesser = guesser.map_or(0, |mut guesser| {
                    target.keep_hidden();
                    let hidden = vec![0.0; spec.embedding_length as usize];
                    (0..512)
                        .for_each(|position| batch.push_after(&hidden, 300, position, 0, position == 511));
                    guesser.decode(&mut batch).unwrap();
                    guesser.memory_taken().unwrap().without_model()
                });
                batch.clear();
                (0..512).for_each(|position| batch.push(300, position, 0, position % 16 == 0));
                target.decode(&mut batch).unwrap();
                target.memory_taken().unwrap().without_model() + guesser
            };
            let (really_without, really_with) = (taken(None), taken(heads));
            let head = format!("blk.{}.", spec.layers);
            let file = gguf::Model::open(&path).unwrap();
            let tensors = file.tensors().map(|location| location.tensor);
            let of_head = tensors.filter(|tensor| tensor.name.starts_with(&head));
            let weights: u64 = of_head.map(|tensor| tensor.bytes).sum();
            let really_more = really_with - really_without + weights;
            let states = hidden_states(heads.unwrap(), &context_params(&options, plan, extra));
            assert!(
                (really_more..=really_more + 2 * states).contains(&more),
                "{architecture}: {more} counted, {really_more} taken"
            );
        }
    }

    #[test]
    fn what_an_eagle_head_takes_is_counted() {
        for words in [Words::Own, Words::Models, Words::Some(500)] {
            let folder = tempfile::tempdir().unwrap();
            let (path, own) = (folder.path().join("model.gguf"), folder.path().join("eagle.gguf"));
            let target = random::small(Architecture::Qwen3, 1);
            target.write(&path).unwrap();
            let eagle = random::Eagle {
                target,
                layers: [0, 1, 3],
                mixture: 0.1,
                words,
            };
            eagle.write(&own).unwrap();
            let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
            let options = Options::new(listen, path.clone(), "model".into());
            let placed = Placed::Here(Vec::new());
            let plan = PLAN;
            let eagle = read_header(&own).unwrap().eagle.unwrap().unwrap();
            let guesser = Guesser::Eagle(EagleFile {
                path: own.clone(),
                eagle,
            });
            let extra = Extra {
                window: 8,
                guesser: Some(&guesser),
                ..Extra::default()
            };
            llama::initialize();
            let more = counted_more(&options, extra);

            let load = |path: &Path| {
                let params = model_params(&placed, plan, None);
                Arc::new(Model::load(path, &params, |_| {}).unwrap())
            };
            let slots = context_params(&options, plan, extra);
            let batch_of = |context: &ContextParams| {
                let mut batch = Batch::default();
                (0..context.batch).for_each(|position| batch.push(300, position, 0, position % 16 == 0));
                batch
            };
            let model = load(&path);
            let mut plain = Context::new(model.clone(), slots.clone()).unwrap();
            plain.decode(&mut batch_of(&slots)).unwrap();
            let without = plain.memory_taken().unwrap().without_model();
            let mut target = Context::new(model, slots.clone()).unwrap();
            let context = eagle_params(&options, plan);
            // SAFETY: it was made for this model, whose graph says what its layers are given.
            let mut head = unsafe { target.of_eagle(load(&own), context.clone()) }.unwrap();
            // SAFETY: as above.
            unsafe { target.keep_hidden_before(&eagle.layers) };
            target.decode(&mut batch_of(&slots)).unwrap();
            let (own_batch, length) = (context.batch as usize, 128);
            head.encode(&mut vec![0.5; own_batch * 3 * length]).unwrap();
            let mut batch = Batch::default();
            let hidden = vec![0.5; length];
            (0..context.batch).for_each(|position| batch.push_after(&hidden, 300, position, 0, true));
            head.decode(&mut batch).unwrap();
            let taken = head.memory_taken().unwrap();
            let really_more = target.memory_taken().unwrap().without_model() - without
                + taken.devices.iter().map(DeviceNeed::total).sum::<u64>();
            // Some of what llama.cpp counts by now is among what was reckoned beside its own reckoning.
            let states = eagle.graph_bytes(slots.batch) + eagle.host_bytes(slots.batch, context.batch);
            assert!(
                (really_more..=really_more + 2 * states).contains(&more),
                "{words:?}: {more} counted, {really_more} taken, states {states}"
            );
        }
    }

    #[test]
    fn what_two_models_need_of_a_memory_adds_up() {
        let of = |device: &str, needed, cache| Demand {
            device: device.into(),
            needed,
            cache,
            free: 100,
        };
        let mut demands = vec![of("worker", 50, 10), of(HOST, 40, 5)];
        add(&mut demands, of(HOST, 7, 2));
        add(&mut demands, of("GPU0", 3, 1));
        assert_eq!(demands, [of("worker", 50, 10), of(HOST, 47, 7), of("GPU0", 3, 1)]);
    }
}
