//! How much context, how many slots and GPU layers, and whether there is room to guess ahead.

use super::draft::{self, Unfit};
use super::eagle::EagleFile;
use super::fit::{Demand, Plan, Shortage, Wish, fit};
use super::header::{Header, read_header};
use super::heads::ModelHeads;
use super::load::{Refused, refused};
use super::measure::{DraftPlace, Extra, Guesser, Measure, context_params, eagle_model_params};
use super::options::{Draft, Options, Origin, SpeculationMode};
use super::placed::Placed;
use crate::llama::{self, Device, DeviceNeed, Model};
use crate::size::size;
use crate::status::Refusal;

/// What is loaded.
pub(super) struct Chosen {
    pub(super) plan: Plan,
    /// What it needs.
    pub(super) demands: Vec<Demand>,
    /// How it guesses ahead.
    pub(super) guessing: Guessing,
    /// What the model and the slots' context need of each device, by llama.cpp's reckoning.
    pub(super) reckoned: Vec<DeviceNeed>,
}

impl Chosen {
    fn new(plan: Plan, demands: Vec<Demand>, guessing: Guessing) -> Self {
        Self {
            plan,
            demands,
            guessing,
            reckoned: Vec::new(),
        }
    }
}

/// How a model guesses ahead.
pub(super) struct Guessing {
    pub(super) mode: SpeculationMode,
    /// Tokens of a window; 0 where nothing is guessed.
    pub(super) window: u32,
    /// Tokens by which a recurrent state can be cut back.
    pub(super) rollback: u32,
    /// What guesses beside copying, and fits.
    pub(super) guesser: Option<Guesser>,
}

impl Guessing {
    const OFF: Self = Self {
        mode: SpeculationMode::Off,
        window: 0,
        rollback: 0,
        guesser: None,
    };

    /// What it takes beside the model.
    pub(super) fn extra(&self) -> Extra<'_> {
        Extra {
            window: self.window,
            rollback: self.rollback,
            guesser: self.guesser.as_ref(),
        }
    }
}

/// Why nothing was chosen.
enum Trouble {
    /// Nothing helps.
    Refused(Refused),
    /// It would fit if others had more of it.
    Short(Shortage),
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Chooses what fits. A split's layers are shared out again where they do not.
///
/// # Errors
/// Where the model does not fit, or a draft model that the user asked for.
pub(super) fn choose(options: &Options, header: &Header, placed: &mut Placed) -> Result<Chosen, Refused> {
    loop {
        let shortage = match choose_there(options, header, placed) {
            Ok(chosen) => {
                if let Placed::Split(arrangement) = placed {
                    arrangement.report();
                    if heads(options, header).is_some() {
                        tracing::info!(
                            "the heads inside {} guess nothing: in a split their hidden states would have to come \
                             over the network before the next step",
                            options.model_name
                        );
                    }
                }
                return Ok(chosen);
            }
            Err(Trouble::Refused(refused)) => return Err(refused),
            Err(Trouble::Short(shortage)) => shortage,
        };
        // Each time a node gets less, or there is a device less, so this ends.
        let has_room = match placed {
            Placed::Here(devices) => leave_out(devices, &shortage, options),
            Placed::Split(arrangement) => arrangement.make_room(&shortage.demand),
        };
        if !has_room {
            let message = too_large(options, &shortage, Extra::default());
            return Err(refused(Refusal::Memory, message));
        }
    }
}

/// Leaves a GPU out that has not even the room for what computing takes beside layers: others use it, or may. Whether there
/// was such a one.
fn leave_out(devices: &mut Vec<Device>, shortage: &Shortage, options: &Options) -> bool {
    let short = devices
        .iter()
        .position(|device| device.name == shortage.demand.device);
    let is_full = shortage.plan.gpu_layers == 0 && options.gpu_layers.is_none();
    let Some(short) = short.filter(|_| is_full) else {
        return false;
    };
    let device = devices.remove(short);
    tracing::info!(
        device = device.name,
        free_gb = shortage.demand.free as f64 / 1e9,
        "has no room for any layer: it is left out"
    );
    true
}

/// Chooses what fits where the model is placed. Guessing ahead takes what is left: it must not cost slots or
/// layers on GPUs.
fn choose_there(options: &Options, header: &Header, placed: &Placed) -> Result<Chosen, Trouble> {
    // The output layer counts as one.
    let (layers, gpu_layers) = match placed {
        Placed::Here(devices) if devices.is_empty() => (0, Some(0)),
        Placed::Here(_) => (header.layers + 1, options.gpu_layers),
        Placed::Split(_) => (header.layers + 1, Some(header.layers + 1)),
    };
    let mut chooser = Chooser {
        options,
        measure: Measure::new(options, placed),
        wish: Wish {
            context: options.context,
            slots: options.slots,
            gpu_layers,
        },
        layers,
        context_train: header.context_train,
        heads: match placed {
            Placed::Here(_) => heads(options, header),
            Placed::Split(_) => None,
        },
    };
    let mut chosen = chooser.choose(placed)?;
    let slots = context_params(options, chosen.plan, chosen.guessing.extra());
    let reckoned = chooser.measure.need(chosen.plan, chosen.guessing.extra(), slots);
    chosen.reckoned = reckoned.map_err(unusable)?;
    for Demand {
        device, needed, free, ..
    } in &chosen.demands
    {
        tracing::debug!(device, needed, free, "memory");
    }
    Ok(chosen)
}

struct Chooser<'a> {
    options: &'a Options,
    measure: Measure<'a>,
    wish: Wish,
    layers: u32,
    context_train: u32,
    /// Heads of the model, where they are of use.
    heads: Option<ModelHeads>,
}

impl Chooser<'_> {
    fn fit(&mut self, extra: Extra<'_>) -> Result<Result<(Plan, Vec<Demand>), Shortage>, llama::Error> {
        fit(self.wish, self.context_train, self.layers, |plan| {
            self.measure.demands(plan, extra)
        })
    }

    /// The model alone.
    fn alone(&mut self) -> Result<Chosen, Trouble> {
        let fitted = self.fit(Extra::default()).map_err(unusable)?;
        let (plan, demands) = fitted.map_err(Trouble::Short)?;
        Ok(Chosen::new(plan, demands, Guessing::OFF))
    }

    fn choose(&mut self, placed: &Placed) -> Result<Chosen, Trouble> {
        let speculation = &self.options.speculation;
        if speculation.mode == SpeculationMode::Off {
            return self.alone();
        }
        let first = placed.model_params(self.wish.gpu_layers.unwrap_or(self.layers));
        let outline = self.measure.outline(&self.options.model, &first);
        let outline = outline.map_err(unusable)?;
        let model = outline.model();
        if !model.makes_text() {
            return self.alone();
        }
        let Some(mut chosen) = self.with_windows(model)? else {
            return self.alone();
        };
        if let Some(heads) = self.heads
            && let Some(with_heads) = self.with_heads(&chosen, heads)
        {
            tracing::info!("heads inside {} guess ahead", self.options.model_name);
            return Ok(with_heads);
        }
        if let Some(draft) = wanted(self.options) {
            let guessers = self.guessers(draft, model, placed);
            match guessers.and_then(|guessers| self.with_one_of(guessers, &chosen, draft.origin)) {
                Ok(with_draft) => chosen = with_draft,
                Err(unfit) => draft::give_up(self.options, draft, unfit)?,
            }
        }
        Ok(chosen)
    }

    /// Room for windows of guesses, if there is some.
    fn with_windows(&mut self, model: &Model) -> Result<Option<Chosen>, Trouble> {
        let speculation = &self.options.speculation;
        let name = &self.options.model_name;
        let mut guessing = Guessing {
            mode: speculation.mode,
            window: speculation.most_window,
            rollback: 0,
            guesser: None,
        };
        let fitted = self.fit(guessing.extra()).map_err(unusable)?;
        let fastest = |plan: &Plan| plan.is_as_fast_as(&Plan::fastest(self.wish, self.layers, plan.context));
        let (plan, demands) = match fitted {
            Ok(fitted) => fitted,
            Err(shortage) => {
                // A model that does not fit alone is refused without a word on guesses.
                self.alone()?;
                if let Some(draft) = wanted(self.options).filter(|draft| draft.origin == Origin::Asked) {
                    let unfit = Unfit::Memory(too_large(self.options, &shortage, guessing.extra()));
                    draft::give_up(self.options, draft, unfit)?;
                }
                tracing::info!("{}", no_memory(name));
                return Ok(None);
            }
        };
        if !fastest(&plan) && !plan.is_as_fast_as(&self.alone()?.plan) {
            tracing::info!("{}", no_memory(name));
            return Ok(None);
        }
        if !model.has_recurrent_state() {
            return Ok(Some(Chosen::new(plan, demands, guessing)));
        }
        guessing.rollback = guessing.window;
        let kept = self.measure.demands(plan, guessing.extra()).map_err(unusable)?;
        if needed(&kept) == needed(&demands) {
            let architecture = model.architecture();
            tracing::info!(
                "{name} guesses nothing ahead: llama.cpp cannot take wrong guesses back from the state of \
                 {architecture} models"
            );
            return Ok(None);
        }
        match self.fit(guessing.extra()).map_err(unusable)? {
            Ok((with_states, demands)) if with_states == plan => {
                Ok(Some(Chosen::new(plan, demands, guessing)))
            }
            _ => {
                tracing::info!(
                    "{name} guesses nothing ahead: keeping the states before wrong guesses would take memory from \
                     the context"
                );
                Ok(None)
            }
        }
    }

    /// What the draft file is to `model`, and where it could compute, the best place first: a model of its own on a GPU,
    /// else on the CPU, or an EAGLE-3 head where the model itself is.
    fn guessers(&mut self, draft: &Draft, model: &Model, placed: &Placed) -> Result<Vec<Guesser>, Unfit> {
        let header = read_header(&draft.path).map_err(Unfit::File)?;
        let failed = |error| Unfit::File(unusable(error));
        if let Some(eagle) = header.eagle {
            if matches!(placed, Placed::Split(_)) {
                return Err(Unfit::Far);
            }
            let eagle = eagle.map_err(|wrong| {
                let message = format!(
                    "{}: {wrong}: the file is damaged, or newer than this program",
                    draft.path.display()
                );
                Unfit::File(refused(Refusal::Model, message))
            })?;
            let first = eagle_model_params(placed, self.layers);
            let outline = self.measure.outline(&draft.path, &first).map_err(failed)?;
            eagle.check(outline.model(), model)?;
            let path = draft.path.clone();
            return Ok(vec![Guesser::Eagle(EagleFile { path, eagle })]);
        }
        let places = placed.for_draft();
        let first = places.first().cloned().unwrap_or_default();
        let outline = self.measure.outline(&draft.path, &first).map_err(failed)?;
        draft::check(outline.model(), model)?;
        let guesser = |model| {
            Guesser::Draft(DraftPlace {
                path: draft.path.clone(),
                model,
            })
        };
        Ok(places.into_iter().map(guesser).collect())
    }

    /// Room for the model's heads, too. Nobody asked for them: they must not make anything else slower.
    fn with_heads(&mut self, chosen: &Chosen, heads: ModelHeads) -> Option<Chosen> {
        let guessing = Guessing {
            guesser: Some(Guesser::Heads(heads)),
            ..chosen.guessing
        };
        let name = &self.options.model_name;
        match self.fit(guessing.extra()) {
            Ok(Ok((plan, demands))) if plan.is_as_fast_as(&chosen.plan) => {
                return Some(Chosen::new(plan, demands, guessing));
            }
            Ok(_) => tracing::info!(
                "the heads inside {name} guess nothing: they would take memory that makes the model itself faster"
            ),
            Err(error) => tracing::warn!("the heads inside {name} guess nothing: {error}"),
        }
        None
    }

    /// Room for one of these, too, the first one that there is some for. What was found by itself must not make
    /// anything else slower.
    fn with_one_of(
        &mut self,
        guessers: Vec<Guesser>,
        chosen: &Chosen,
        origin: Origin,
    ) -> Result<Chosen, Unfit> {
        let mut why = String::new();
        for (left, guesser) in (0..guessers.len()).rev().zip(guessers) {
            let guessing = Guessing {
                guesser: Some(guesser),
                ..chosen.guessing
            };
            let fitted = self.fit(guessing.extra());
            match fitted.map_err(|error| Unfit::File(unusable(error)))? {
                Ok((plan, demands))
                    if plan.is_as_fast_as(&chosen.plan) || (left == 0 && origin == Origin::Asked) =>
                {
                    return Ok(Chosen::new(plan, demands, guessing));
                }
                Ok(_) => why = "it would take memory that makes the model itself faster".to_owned(),
                Err(shortage) => why = too_large(self.options, &shortage, guessing.extra()),
            }
        }
        Err(Unfit::Memory(why))
    }
}

fn no_memory(model: &str) -> String {
    format!("{model} guesses nothing ahead: there is no memory for windows of guesses")
}

/// What each memory must hold: what is free there may change any time.
fn needed(demands: &[Demand]) -> Vec<u64> {
    demands.iter().map(|demand| demand.needed).collect()
}

/// The draft model, where it is of use.
fn wanted(options: &Options) -> Option<&Draft> {
    let speculation = &options.speculation;
    speculation
        .draft
        .as_ref()
        .filter(|_| speculation.mode.uses_draft())
}

/// The model's heads, where they are of use: a draft model that somebody named guesses in their place.
fn heads(options: &Options, header: &Header) -> Option<ModelHeads> {
    let named = wanted(options).is_some_and(|draft| draft.origin == Origin::Asked);
    let of_use = options.speculation.mode.uses_draft() && !named;
    header.heads.filter(|_| of_use)
}

fn unusable(error: llama::Error) -> Refused {
    refused(Refusal::Model, error.to_string())
}

/// Why it does not fit, with the numbers and what to do.
fn too_large(options: &Options, shortage: &Shortage, extra: Extra<'_>) -> String {
    let Shortage { plan, demand } = shortage;
    let mut remedies = vec!["a smaller model or quantization"];
    if options.context.is_some() {
        remedies.insert(0, "a smaller --ctx-size");
    }
    if demand.cache * 4 > demand.needed {
        remedies.insert(0, "--cache-type-k q8_0 --cache-type-v q8_0");
    }
    let with = match extra.guesser {
        Some(Guesser::Draft(_) | Guesser::Eagle(_)) => "its draft model and ",
        Some(Guesser::Heads(_)) | None => "",
    };
    format!(
        "{} with {with}a context of {} tokens needs {}, {} free on {}; try {}",
        options.model_name,
        plan.context,
        size(demand.needed),
        size(demand.free),
        demand.device,
        remedies.join(", or "),
    )
}
