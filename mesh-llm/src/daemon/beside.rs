//! The models that this machine serves beside its first one: those that were named with it, and those that somebody
//! loads while it runs.

use super::draft::Wanted;
use super::mesh::{Joiner, LoadedFor};
use super::options::{self, Socket};
use super::report::{self, Reporter};
use super::serving::{AskedFor, ByModel, Served, Service};
use super::settings::{DraftWish, Settings, SpeculationSettings, Spread};
use super::split::Split;
use crate::engine::{Failure, Launch, Program, State, Wish, Wished};
use crate::exit::Exit;
use crate::manage::{DroppedModel, Refusal};
use crate::mesh::state::{MAX_TEXT_BYTES, MAX_WANTS, WantState};
use crate::models::need::Need;
use crate::models::{Library, Model};
use hyper::StatusCode;
use llama_engine::server::options::Draft;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The most models beside the first: as many as others hear of.
const MOST: usize = MAX_WANTS - 1;

/// What all of them are started with.
pub(super) struct Ground {
    /// What the user said.
    pub(super) settings: Settings,
    /// Where models are.
    pub(super) library: Arc<Library>,
    /// The engine's program.
    pub(super) program: Program,
    /// The daemon's folder.
    pub(super) folder: PathBuf,
    /// Where fingerprints of models are remembered.
    pub(super) fingerprints: PathBuf,
    /// Where the API is.
    pub(super) address: SocketAddr,
    /// Tells the user.
    pub(super) reporter: Reporter,
    /// Ties models to the mesh.
    pub(super) joiner: Joiner,
    /// Told what becomes of each.
    pub(super) states: watch::Sender<ByModel<State>>,
}

impl Ground {
    /// Begins to serve a model, the engine of this number, over the workers of `split` if there are any. `why` is for whom;
    /// none: nobody asked for it.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(super) fn serve(
        &self,
        (model, draft, split): (Model, Option<Draft>, Split),
        number: u32,
        why: Option<LoadedFor>,
        state: watch::Sender<State>,
    ) -> io::Result<Served> {
        // Where its user says with whom it is split, there is nothing to plan.
        let asked = match why.is_some() && split.workers.is_empty() {
            true => asked_for(&self.settings, &model),
            false => None,
        };
        let in_mesh = match asked.is_some() || why.is_none() {
            true => {
                let asked = asked.as_ref().map(|(asked, _)| asked.clone());
                let (fingerprints, library) = (self.fingerprints.clone(), self.library.clone());
                self.joiner.in_mesh(asked, fingerprints, library)
            }
            false => None,
        };
        if let Some((_, want)) = asked {
            self.joiner.wants(WantState {
                is_adopted: why == Some(LoadedFor::Mesh),
                ..want
            });
        }
        let socket = Socket {
            folder: &self.folder,
            number,
        };
        let options = options::options(&self.settings, model, draft, split, socket)?;
        let log = self.reporter.clone();
        Ok(Served::start(Service {
            launch: Launch {
                program: self.program.clone(),
                options,
            },
            in_mesh,
            state,
            log: Arc::new(move |line| log.engine_log(line)),
        }))
    }
}

/// What words mean.
pub(super) enum Found {
    /// A model that is not served here.
    New(Box<Wanted>),
    /// One that this machine took on for the mesh, by its name: now its user wants it.
    TakenOn(String),
}

/// All of them.
pub(super) struct Beside {
    ground: Arc<Ground>,
    running: BTreeMap<String, Wished<()>>,
    /// Counts those that there ever were.
    count: u32,
}

impl Beside {
    /// None yet.
    pub(super) fn new(ground: Arc<Ground>) -> Self {
        Self {
            ground,
            running: BTreeMap::new(),
            count: 0,
        }
    }

    /// Finds the model that `words` mean, for whom is `why`. `taken` is the name of one that is served already.
    ///
    /// # Errors
    /// Where it is not clear which is meant, or it is served already.
    pub(super) fn find(
        &mut self,
        words: &str,
        taken: Option<&str>,
        why: LoadedFor,
    ) -> Result<Found, Refusal> {
        let ground = &self.ground;
        let speculation = SpeculationSettings {
            // One that was named is for the first model.
            draft: match &ground.settings.speculation.draft {
                DraftWish::Named(_) => DraftWish::Whichever,
                wish => wish.clone(),
            },
            ..ground.settings.speculation.clone()
        };
        let wanted = Wanted::find(&ground.library, Some(words), &speculation, u64::MAX);
        let wanted = wanted
            .map_err(|error| Refusal::new(StatusCode::NOT_FOUND, "model_not_found", error.to_string()))?;
        let name = wanted.name();
        self.running.retain(|_, model| !model.has_ended());
        if why == LoadedFor::User && self.running.contains_key(&name) && ground.joiner.make_users(&name) {
            return Ok(Found::TakenOn(name));
        }
        if taken == Some(name.as_str()) || self.running.contains_key(&name) {
            let message = format!("{name} is served here already: `mesh-llm status` shows how far it is");
            return Err(Refusal::new(StatusCode::CONFLICT, "already_served", message));
        }
        if self.running.len() >= MOST {
            let message = format!("{MOST} models beside the first are enough: `mesh-llm drop` ends one");
            return Err(Refusal::new(StatusCode::CONFLICT, "too_many_models", message));
        }
        if name.len() > MAX_TEXT_BYTES {
            let message = format!("the name has more than {MAX_TEXT_BYTES} bytes: rename the model's file");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "name_too_long", message));
        }
        Ok(Found::New(Box::new(wanted)))
    }

    /// Begins to serve a model, downloading it if it is not there; its name.
    pub(super) fn begin(&mut self, wanted: Wanted, why: LoadedFor) -> String {
        let name = wanted.name();
        self.count += 1;
        let model = Loading {
            ground: self.ground.clone(),
            name: name.clone(),
            number: self.count,
            why,
        };
        let running = Wished::start(|wishes| model.run(wanted, wishes));
        self.running.insert(name.clone(), running);
        name
    }

    /// Serves the model of this name no more; `first` is the name of the one that is no matter of these.
    ///
    /// # Errors
    /// Where it is not there.
    pub(super) fn drop_model(&mut self, name: &str, first: Option<&str>) -> Result<DroppedModel, Refusal> {
        self.running.retain(|_, model| !model.has_ended());
        let Some(model) = self.running.get(name) else {
            return Err(self.not_here(name, first));
        };
        // Its name is taken until it has ended.
        model.finish();
        Ok(DroppedModel {
            name: name.to_owned(),
        })
    }

    fn not_here(&self, model: &str, first: Option<&str>) -> Refusal {
        let here = first.into_iter().chain(self.running.keys().map(String::as_str));
        let here: Vec<&str> = here.collect();
        let here = match here.is_empty() {
            true => "no model is".to_owned(),
            false => format!("these are: {}", here.join(", ")),
        };
        let message = format!("{model} is not served by this machine; {here}");
        Refusal::new(StatusCode::NOT_FOUND, "model_not_found", message)
    }

    /// Ends all of them.
    pub(super) async fn finish(self, impatience: impl Future<Output = ()>) {
        let (hurry, hurries) = watch::channel(false);
        let all = self.running.into_values().map(|model| {
            let mut hurries = hurries.clone();
            model.end(async move {
                // Where nobody can be in a hurry any more, nobody waits.
                let _ = hurries.wait_for(|hurry| *hurry).await;
            })
        });
        let ended = futures_util::future::join_all(all);
        tokio::pin!(ended);
        tokio::select! {
            _ = &mut ended => {}
            () = impatience => {
                hurry.send_replace(true);
                ended.await;
            }
        }
    }
}

/// A model from when it was asked for.
struct Loading {
    ground: Arc<Ground>,
    name: String,
    number: u32,
    why: LoadedFor,
}

impl Loading {
    async fn run(self, wanted: Wanted, wishes: watch::Receiver<Wish>) {
        let (state, states) = watch::channel(State::Starting);
        let telling = tokio::spawn(tell(self.name.clone(), states, self.ground.states.clone()));
        let had = tokio::select! {
            had = wanted.have(&self.ground.library, &state, &self.ground.reporter) => had,
            () = wished(wishes.clone()) => return self.forget(telling).await,
        };
        let served = match had {
            Ok((model, draft)) => {
                // It is known by the name that it was asked for, whatever its file is called.
                let model = Model {
                    id: self.name.clone(),
                    ..model
                };
                let what = (model, draft, Split::default());
                let served = self
                    .ground
                    .serve(what, self.number, Some(self.why), state.clone());
                served.map_err(|error| format!("choosing a secret failed: {error}"))
            }
            Err(error) => Err(error.to_string()),
        };
        match served {
            Ok(served) => self.follow(served, wishes).await,
            Err(message) => {
                self.ground
                    .reporter
                    .note(&format!("{} is not served: {message}", self.name));
                state.send_replace(State::Failed(Failure {
                    message,
                    last_lines: Vec::new(),
                    exit: Exit::FILE,
                }));
                // What became of it can be seen until it is dropped.
                wished(wishes).await;
            }
        }
        self.forget(telling).await;
    }

    /// Tells the user how it goes, until it is to end.
    async fn follow(&self, served: Served, mut wishes: watch::Receiver<Wish>) {
        let mut report = self.ground.reporter.engine(report::Offer {
            model: self.name.clone(),
            address: self.ground.address,
        });
        let mut states = served.state();
        loop {
            let state = states.borrow_and_update().clone();
            report.state(&state);
            if let State::Failed(failure) = &state {
                self.ground
                    .reporter
                    .note(&format!("{} is not served: {}", self.name, failure.message));
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { break },
                () = wished(wishes.clone()) => break,
            }
        }
        let died = async move {
            // Where nobody can wish any more, nobody is impatient.
            if wishes.wait_for(|wish| *wish == Wish::Die).await.is_err() {
                std::future::pending().await
            }
        };
        served.stop(died).await;
    }

    async fn forget(&self, telling: JoinHandle<()>) {
        telling.abort();
        // Nothing is told after that.
        let _ = telling.await;
        self.ground.joiner.wants_no_more(&self.name);
        self.ground
            .states
            .send_modify(|states| drop(states.remove(&self.name)));
    }
}

/// Waits until a model is to end.
async fn wished(mut wishes: watch::Receiver<Wish>) {
    // Where nobody can wish any more, it ends as well.
    let _ = wishes.wait_for(|wish| *wish > Wish::Serve).await;
}

/// Passes on what becomes of a model.
async fn tell(name: String, mut states: watch::Receiver<State>, all: watch::Sender<ByModel<State>>) {
    loop {
        let state = states.borrow_and_update().clone();
        all.send_modify(|all| drop(all.insert(name.clone(), state)));
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// What a model that this machine was told to serve needs, for itself and for others. None where its header cannot be
/// read: the engine says why.
fn asked_for(settings: &Settings, model: &Model) -> Option<(AskedFor, WantState)> {
    let need = Need::read(&model.path, settings.engine.context.map(Into::into)).ok()?;
    let is_spread = settings.mesh.spread == Spread::Always;
    let want = WantState {
        model: model.id.clone(),
        layers: u32::try_from(need.work.layers.len()).unwrap_or(u32::MAX),
        layer_bytes: need.work.layers.iter().sum(),
        head_bytes: need.work.head,
        logits_bytes: need.work.logits,
        beside_bytes: need.beside,
        is_split: is_spread,
        is_too_large: false,
        is_adopted: false,
    };
    let asked = AskedFor {
        bytes: need.bytes(),
        is_spread,
    };
    Some((asked, want))
}
