//! Slots, the policy of batches, and the loop that drives llama.cpp.
//!
//! `slot`, `placement`, `policy`, `text` and `logprobs` decide and are pure; `runner` owns context,
//! slots and queue on a thread of its own; this module is the handle that the rest of the process
//! holds. It knows nothing of HTTP or JSON.

mod between;
mod embedder;
mod flow;
mod logprobs;
mod params;
pub(crate) mod pipeline;
mod placement;
mod policy;
mod request;
mod runner;
mod saved;
mod slot;
mod speculation;
mod state;
pub mod task;
#[cfg(test)]
mod tests;
mod text;

use std::sync::{Arc, OnceLock, mpsc as thread_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use params::{EngineParams, HeadsContext, ModelFile, SpeculationParams};
pub use state::EngineState;

use crate::llama::{ChatTemplates, Context, ContextParams, Error, MemoryNeed, Model, Token};
use crate::priority;
use crate::server::parent::report;
use crate::status::Status;
use embedder::Embedder;
use pipeline::Pipeline;
use placement::CacheKind;
use request::{Chooser, Request};
pub use runner::PROMPT_ROWS;
use runner::{Limits, Runner, Speculating};
pub use saved::SlotFiles;
use speculation::drafter::Draft;
use task::{Embed, Events, Failure, Generate};

/// Longest text for an embedding, in tokens, unless the model was trained for less.
const EMBED_LIMIT: u32 = 2048;
/// The same for models that make text: llama.cpp keeps a row of logits for each token of theirs.
const EMBED_LIMIT_OF_TEXT: u32 = 512;

/// What the loop is asked to do.
#[derive(Debug)]
enum Command {
    Generate(Box<Request>),
    Embed(Embed),
    /// Saves the slots; answered when that is done.
    Save(oneshot::Sender<()>),
    /// A node of the split is lost.
    Lost(String),
    /// The draft model says something.
    Drafts(Vec<Draft>),
    /// Results of a step may be there.
    Answered,
    /// All handles are gone. Others have senders, too.
    End,
}

/// The handle of a running engine. It ends when all handles are gone.
#[derive(Debug, Clone)]
pub struct Engine {
    commands: thread_channel::Sender<Command>,
    state: watch::Receiver<EngineState>,
    places: Arc<Semaphore>,
    about: Arc<About>,
}

#[derive(Debug)]
struct About {
    name: String,
    file: ModelFile,
    model: Arc<Model>,
    templates: Arc<ChatTemplates>,
    context: u32,
    slots: u32,
    embed_limit: u32,
    memory: Option<MemoryNeed>,
    lost: Arc<OnceLock<String>>,
    commands: thread_channel::Sender<Command>,
}

impl Drop for About {
    fn drop(&mut self) {
        // A loop that is gone needs no telling.
        let _ = self.commands.send(Command::End);
    }
}

impl Engine {
    /// Makes the context and starts the loop on a thread of its own.
    ///
    /// # Errors
    /// Where llama.cpp cannot make the context.
    pub fn start(model: Arc<Model>, templates: ChatTemplates, params: EngineParams) -> Result<Self, Error> {
        let slots = params.context.sequences;
        let mut context = if model.makes_text() {
            Some(Context::new(model.clone(), params.context.clone())?)
        } else {
            None
        };
        let memory = context.as_ref().map(Context::memory_taken).transpose()?;
        let size = context
            .as_ref()
            .map_or(0, Context::size)
            .min(params.context.context.max(1));
        let limits = Limits {
            slots: slots as usize,
            context: size as usize,
            batch: params.context.batch as usize,
            rows: params.context.outputs as usize,
            cache: cache_kind(&model),
        };
        let embed_limit = embed_limit(&model);
        let embed_params = embedding_params(&params.context, &model);
        let embed_model = model.clone();
        let make_embedder = move || Embedder::new(embed_model.clone(), embed_params.clone());

        let (commands, received) = thread_channel::channel();
        let (published, state) = watch::channel(EngineState::default());
        let lost = Arc::new(OnceLock::new());
        if let Some(split) = &params.split {
            let (commands, answered) = (commands.clone(), commands.clone());
            split.when_lost(move |lost| {
                // The parent hears of it before any request ends for it.
                report(&Status::Lost {
                    message: lost.to_string(),
                });
                // A loop that is gone needs no telling.
                drop(commands.send(Command::Lost(lost.to_string())));
            });
            let commands = answered;
            split.when_answered(move || drop(commands.send(Command::Answered)));
        }
        let target = context.as_mut().filter(|_| params.split.is_none());
        let speculating = Speculating::start(params.speculation, limits.cache, target, commands.clone())?;
        let pipeline = context.map(|context| match params.split {
            Some(split) => Pipeline::over(context, split),
            None => Pipeline::new(context).delayed(params.step_delay),
        });
        let runner = Runner::new(
            pipeline,
            limits,
            Box::new(make_embedder),
            published,
            params.saved,
            lost.clone(),
            speculating,
        );
        thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                priority::compute();
                runner.run(&received);
            })
            .map_err(|error| Error::Context(format!("no thread for the engine: {error}")))?;
        let about = About {
            name: params.name,
            file: params.file,
            model,
            templates: Arc::new(templates),
            context: size,
            slots,
            embed_limit,
            memory,
            lost,
            commands: commands.clone(),
        };
        let places = Arc::new(Semaphore::new((slots + params.queue) as usize));
        Ok(Self {
            commands,
            state,
            places,
            about: Arc::new(about),
        })
    }

    /// Asks for a continuation. Making the sampler of a large grammar takes its time: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// [`Failure::TooLong`], [`Failure::Busy`] and [`Failure::Invalid`], before anything is queued.
    pub fn generate(&self, task: Generate) -> Result<Events, Failure> {
        let prompt_tokens = u32::try_from(task.prompt.len()).unwrap_or(u32::MAX);
        if self.about.context == 0 {
            return Err(Failure::Invalid(format!(
                "{} makes embeddings, no text",
                self.about.name
            )));
        }
        if prompt_tokens >= self.about.context {
            return Err(Failure::TooLong {
                prompt_tokens,
                context: self.about.context,
            });
        }
        let vocab = self.about.model.vocab_size();
        if task.prompt.is_empty()
            || task
                .prompt
                .iter()
                .any(|token| u32::try_from(*token).map_or(true, |token| token >= vocab))
        {
            return Err(Failure::Invalid(format!(
                "the prompt must be tokens from 0 to {}, at least one",
                vocab - 1
            )));
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| self.busy())?;
        let chooser =
            Chooser::new(&self.about.model, &task).map_err(|error| Failure::Invalid(error.to_string()))?;
        let (events, answer) = mpsc::unbounded_channel();
        let request = Request {
            task,
            chooser,
            events,
            since: Instant::now(),
            _place: place,
        };
        self.commands
            .send(Command::Generate(Box::new(request)))
            .map_err(|_| self.gone())?;
        Ok(answer)
    }

    /// Why the loop takes nothing more.
    fn gone(&self) -> Failure {
        let lost = self.about.lost.get();
        lost.map_or(Failure::ShuttingDown, |lost| Failure::Lost(lost.clone()))
    }

    fn busy(&self) -> Failure {
        let state = self.state();
        let rounds = f64::from(state.waiting + 1) / f64::from(self.about.slots.max(1));
        let seconds = (state.request_seconds * rounds).clamp(1.0, 60.0).ceil();
        Failure::Busy {
            slots: self.about.slots,
            waiting: state.waiting,
            retry_after: Duration::from_secs(seconds as u64),
        }
    }

    /// Asks for the vector of a text of at most [`Self::embed_limit`] tokens.
    ///
    /// # Errors
    /// [`Failure::TooLong`], and [`Failure::Invalid`] for a text without tokens.
    pub fn embed(&self, tokens: Vec<Token>) -> Result<oneshot::Receiver<Result<Vec<f32>, Failure>>, Failure> {
        let prompt_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        if prompt_tokens > self.about.embed_limit {
            return Err(Failure::TooLong {
                prompt_tokens,
                context: self.about.embed_limit,
            });
        }
        if tokens.is_empty() {
            return Err(Failure::Invalid("the input has no tokens".into()));
        }
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Embed(Embed { tokens, reply }))
            .map_err(|_| self.gone())?;
        Ok(answer)
    }

    /// Saves the slots' caches, where there is a place for them; returns when that is done.
    pub async fn save(&self) {
        let (done, saved) = oneshot::channel();
        // A loop that is gone has nothing to save.
        if self.commands.send(Command::Save(done)).is_ok() {
            let _ = saved.await;
        }
    }

    /// Counters and gauges, as of the last step.
    pub fn state(&self) -> EngineState {
        *self.state.borrow()
    }

    /// Which node of the split is lost, and why, if one is: the loop has ended then.
    pub fn lost(&self) -> Option<&str> {
        self.about.lost.get().map(String::as_str)
    }

    /// Returns when the loop has ended, which it does by itself only if it panicked, or a node of the
    /// split is lost.
    pub async fn ended(&self) {
        let mut state = self.state.clone();
        while state.changed().await.is_ok() {}
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.about.model
    }

    /// What its model and the slots' context take; nothing where it makes no text.
    pub fn memory_taken(&self) -> Option<&MemoryNeed> {
        self.about.memory.as_ref()
    }

    /// What is known of its file.
    pub fn file(&self) -> &ModelFile {
        &self.about.file
    }

    /// Its chat templates.
    pub fn templates(&self) -> &Arc<ChatTemplates> {
        &self.about.templates
    }

    /// Its id at the API.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// Tokens that all slots share; 0 for a model that makes no text.
    pub fn context(&self) -> u32 {
        self.about.context
    }

    /// Requests that are served at once.
    pub fn slots(&self) -> u32 {
        self.about.slots
    }

    /// Longest text for an embedding, in tokens.
    pub fn embed_limit(&self) -> u32 {
        self.about.embed_limit
    }
}

/// Longest text for an embedding by this model, in tokens.
fn embed_limit(model: &Model) -> u32 {
    let longest = if model.makes_text() {
        EMBED_LIMIT_OF_TEXT
    } else {
        EMBED_LIMIT
    };
    longest.min(model.context_train()).max(1)
}

/// The context for embeddings that is made beside the slots' `base`.
pub(super) fn embedding_params(base: &ContextParams, model: &Model) -> ContextParams {
    embedder::context_params(model, base, embed_limit(model))
}

fn cache_kind(model: &Model) -> CacheKind {
    if model.has_recurrent_state() {
        return CacheKind::State;
    }
    model
        .sliding_window()
        .map_or(CacheKind::Cells, |window| CacheKind::Window(window as usize))
}
