//! The daemon from when its port is open to its end.

use super::api::Api;
use super::beside::{Beside, Found, Ground};
use super::mesh::{LoadedFor, ModelOrder, Party};
use super::report::{self, EngineReport, Offer, Reporter};
use super::serving::{ByModel, Served};
use super::settings::Settings;
use super::signals::Signals;
use super::start::Ending;
use super::state::{Home, RunFolder};
use super::{Error, OwnModel, unexpected};
use crate::engine::{Failure, State};
use crate::manage::{DroppedModel, LoadedModel, Refusal};
use hyper::StatusCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long exchanges that run may take to finish after the daemon was told to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// How long clients may take to hear of an engine that failed.
pub(super) const TELL_WITHIN: Duration = Duration::from_secs(1);

/// An engine that ends within this time is not worth a word.
const END_QUIETLY: Duration = Duration::from_millis(500);

/// Memory that is back within this time is not worth a word.
const GIVE_BACK_QUIETLY: Duration = Duration::from_secs(2);

/// How long a model that nobody asked for may take to make room for one that somebody did.
const MAKE_ROOM_WITHIN: Duration = Duration::from_secs(5);

/// What ends the daemon from outside.
pub(super) struct Orders {
    pub(super) signals: Signals,
    /// Somebody used `mesh-llm stop`.
    pub(super) stopped: mpsc::Receiver<()>,
}

/// What somebody wants of this machine's models, by `mesh-llm load` and `mesh-llm drop`.
pub(super) struct ModelOrders(pub(super) mpsc::Receiver<ModelOrder>);

impl Orders {
    /// The next one.
    async fn next(&mut self) {
        tokio::select! {
            () = self.signals.next() => {}
            Some(()) = self.stopped.recv() => {}
        }
    }
}

impl ModelOrders {
    /// The next one.
    async fn next(&mut self) -> ModelOrder {
        match self.0.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}

/// A run of the daemon, once its port is open.
pub(super) struct Run<'a> {
    pub(super) settings: &'a Settings,
    pub(super) reporter: &'a Reporter,
    pub(super) address: SocketAddr,
    pub(super) folder: &'a RunFolder,
    pub(super) home: &'a Home,
    pub(super) state: watch::Sender<State>,
    /// Told what becomes of the models beside the first.
    pub(super) beside: watch::Sender<ByModel<State>>,
}

impl Run<'_> {
    /// Serves a model, for this machine and for others.
    pub(super) async fn serving(
        self,
        own: OwnModel,
        api: Api,
        mut party: Party,
        (mut orders, mut model_orders): (Orders, ModelOrders),
    ) -> Result<(), Error> {
        let Run {
            settings,
            reporter,
            address,
            folder,
            home,
            state,
            beside: beside_states,
        } = self;
        let OwnModel {
            program,
            library,
            wanted,
            split,
            others,
        } = own;
        let ground = Arc::new(Ground {
            settings: settings.clone(),
            library: library.clone(),
            program,
            folder: folder.path().to_owned(),
            fingerprints: home.fingerprints()?,
            address,
            reporter: reporter.clone(),
            joiner: party.joiner(),
            states: beside_states,
        });
        let mut beside = Beside::new(ground.clone());
        for words in others {
            match beside.find(&words, Some(&wanted.name()), LoadedFor::User) {
                Ok(Found::New(other)) => {
                    beside.begin(*other, LoadedFor::User);
                }
                Ok(Found::TakenOn(_)) => {}
                Err(refusal) => reporter.note(&refusal.message),
            }
        }
        let name = wanted.name();
        let had = {
            let having = wanted.have(&library, &state, reporter);
            tokio::pin!(having);
            loop {
                tokio::select! {
                    had = &mut having => break Some(had.map_err(Error::from)),
                    error = party.refused() => break Some(Err(error.into())),
                    () = orders.next() => break None,
                    order = model_orders.next() => order.refuse(Refusal::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "downloading",
                        format!("{name} is being downloaded: try again once it is there"),
                    )),
                }
            }
        };
        let Some(had) = had else {
            state.send_replace(State::Stopping);
            api.finish(sleep(TELL_WITHIN), || {}).await;
            beside.finish(std::future::ready(())).await;
            party.finish().await;
            return Ok(());
        };
        let (model, draft) = match had {
            Ok(had) => had,
            Err(error) => {
                state.send_replace(State::Failed(Failure {
                    message: error.to_string(),
                    last_lines: Vec::new(),
                    exit: error.exit(),
                }));
                api.finish(sleep(TELL_WITHIN), || {}).await;
                beside.finish(std::future::ready(())).await;
                party.finish().await;
                return Err(error);
            }
        };
        let offer = Offer {
            model: model.id.clone(),
            address,
        };
        let path = model.path.clone();
        let first = First {
            name: model.id.clone(),
            was_asked_for: !settings.models.is_empty(),
        };
        ground.joiner.first(&first.name);
        let why = first.was_asked_for.then_some(LoadedFor::User);
        let engine = ground.serve((model, draft, split), 0, why, state.clone());
        let engine = engine.map_err(unexpected("choosing a secret"))?;
        let parts = Parts {
            orders,
            model_orders,
            state,
            first: Some((first, engine)),
            ending: None,
            beside,
            api,
            party,
            saves_slots: settings.engine.slot_save.is_some(),
        };
        // What does not run is not what the next start should take up again.
        let remember = || library.memory().used(&path);
        parts.run(reporter, reporter.engine(offer), remember).await
    }

    /// Only uses what others serve.
    pub(super) async fn using(
        self,
        api: Api,
        mut party: Party,
        (mut orders, mut model_orders): (Orders, ModelOrders),
    ) -> Result<(), Error> {
        self.reporter.note(&format!(
            "the models of the mesh answer at {}",
            report::url(self.address)
        ));
        let end = loop {
            tokio::select! {
                error = party.refused() => break Err(error.into()),
                () = orders.next() => break Ok(()),
                order = model_orders.next() => order.refuse(Refusal::new(
                    StatusCode::CONFLICT,
                    "client",
                    "this machine only uses what others serve: start it without --client",
                )),
            }
        };
        match &end {
            Err(_) => api.finish(sleep(TELL_WITHIN), || {}).await,
            Ok(()) => {
                drain(api, &mut orders, self.reporter).await;
            }
        }
        party.finish().await;
        end
    }
}

/// Lets the exchanges that run come to their end; whether somebody was in a hurry meanwhile.
async fn drain(api: Api, orders: &mut Orders, reporter: &Reporter) -> bool {
    let mut hurry = false;
    let limit = async {
        tokio::select! {
            () = sleep(DRAIN_WITHIN) => {}
            () = orders.next() => hurry = true,
        }
    };
    let seconds = DRAIN_WITHIN.as_secs();
    let note = format!(
        "ending once the running requests are answered, at most {seconds} s; a second Ctrl-C ends at once"
    );
    api.finish(limit, || reporter.note(&note)).await;
    hurry
}

/// Waits until others need this machine's memory no more, unless it is too late or somebody is in a hurry.
async fn give_back(party: &Party, ends_at: Instant, orders: &mut Orders, reporter: &Reporter) {
    if timeout(GIVE_BACK_QUIETLY, party.is_back()).await.is_ok() {
        return;
    }
    reporter.note(
        "other machines still compute with this one: ending once they have answered; Ctrl-C ends at once",
    );
    tokio::select! {
        () = party.is_back() => {}
        () = sleep_until(ends_at) => {}
        () = orders.next() => {}
    }
}

/// The model that the daemon was started with.
struct First {
    name: String,
    /// Whether somebody named it.
    was_asked_for: bool,
}

/// Everything that runs.
struct Parts {
    orders: Orders,
    model_orders: ModelOrders,
    state: watch::Sender<State>,
    /// None: it was dropped.
    first: Option<(First, Served)>,
    /// The first model, where it was dropped and still answers.
    ending: Option<(String, JoinHandle<()>)>,
    beside: Beside,
    api: Api,
    party: Party,
    /// Whether engines write their slots' caches to disk when they end.
    saves_slots: bool,
}

impl Parts {
    /// Runs until a signal, or until the first model's engine has failed; then stops everything.
    /// `ready` is called each time that the engine becomes ready.
    async fn run(
        mut self,
        reporter: &Reporter,
        mut report: EngineReport,
        ready: impl Fn(),
    ) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        let end = loop {
            if self.first.is_some() {
                let now = state.borrow_and_update().clone();
                report.state(&now);
                if let State::Ready(_) = now {
                    ready();
                }
                if let State::Failed(failure) = now {
                    break Err(Error::Engine(failure));
                }
            }
            tokio::select! {
                // This holds the sender.
                _ = state.changed() => {}
                error = self.party.refused() => break Err(error.into()),
                () = self.orders.next() => break Ok(()),
                order = self.model_orders.next() => self.obey(order).await,
            }
        };
        // Where others compute with this machine, their answers are to come to an end, too.
        self.party.withdraw();
        let ends_at = Instant::now() + DRAIN_WITHIN;
        let mut hurry = false;
        match &end {
            Err(_) => self.api.finish(sleep(TELL_WITHIN), || {}).await,
            Ok(()) => hurry = drain(self.api, &mut self.orders, reporter).await,
        }
        let (late, lates) = watch::channel(false);
        let impatience = async {
            if !hurry && timeout(END_QUIETLY, self.orders.next()).await.is_err() {
                if self.saves_slots {
                    reporter.note("saving the slots' caches; a second Ctrl-C ends at once, without them");
                }
                self.orders.next().await;
            }
            late.send_replace(true);
            // It is over when the engines are.
            std::future::pending::<()>().await;
        };
        let is_late = || {
            let mut lates = lates.clone();
            async move {
                // The sender lives as long as this is waited for.
                let _ = lates.wait_for(|late| *late).await;
            }
        };
        let first = async {
            match self.first {
                Some((_, engine)) => engine.stop(is_late()).await,
                None => false,
            }
        };
        let dropped = async {
            if let Some((_, task)) = self.ending {
                tokio::select! {
                    _ = task => {}
                    () = is_late() => {}
                }
            }
        };
        let ending = async {
            let (cut, (), ()) = tokio::join!(first, self.beside.finish(is_late()), dropped);
            cut
        };
        let cut = tokio::select! {
            cut = ending => cut,
            () = impatience => false,
        };
        if cut && self.saves_slots {
            reporter.note(
                "ended at once: caches of slots that were not saved yet are lost, the prompts of their chats will be computed again",
            );
        }
        if end.is_ok() && !hurry && !*lates.borrow() {
            give_back(&self.party, ends_at, &mut self.orders, reporter).await;
        }
        // After the engines: what they compute with others, and what they answer them, goes through the mesh.
        self.party.finish().await;
        end
    }

    /// Does what somebody wants of this machine's models. Who asked may be gone.
    async fn obey(&mut self, order: ModelOrder) {
        let first = self.first.as_ref().map(|(first, _)| first.name.clone());
        match order {
            ModelOrder::Load { model, why, reply } => {
                let ending = self.ending.as_ref().filter(|(_, task)| !task.is_finished());
                let is_free = why == LoadedFor::User && self.first_makes_room();
                let served = first.filter(|_| !is_free);
                let taken = served.or_else(|| ending.map(|(name, _)| name.clone()));
                let _ = reply.send(match self.beside.find(&model, taken.as_deref(), why) {
                    Ok(Found::TakenOn(name)) => Ok(LoadedModel { name }),
                    Ok(Found::New(wanted)) => {
                        if why == LoadedFor::User {
                            self.make_room(&wanted.name()).await;
                        }
                        let name = self.beside.begin(*wanted, why);
                        Ok(LoadedModel { name })
                    }
                    Err(refusal) => Err(refusal),
                });
            }
            ModelOrder::Drop { model, reply } if first.as_ref() == Some(&model) => {
                self.drop_first();
                let _ = reply.send(Ok(DroppedModel { name: model }));
            }
            ModelOrder::Drop { model, reply } => {
                let _ = reply.send(self.beside.drop_model(&model, first.as_deref()));
            }
        }
    }

    /// Whether the first model is one that nobody asked for, and not served at the moment.
    fn first_makes_room(&self) -> bool {
        let is_unasked = self.first.as_ref().is_some_and(|(first, _)| !first.was_asked_for);
        is_unasked && matches!(*self.state.borrow(), State::Elsewhere { .. })
    }

    /// A model that nobody asked for makes room for one that somebody did, and comes back after it, unless that is the same one.
    async fn make_room(&mut self, wanted: &str) {
        let unasked = self.first.as_ref().filter(|(first, _)| !first.was_asked_for);
        if unasked.is_some_and(|(first, _)| first.name != wanted) && self.party.joiner().make_room_for(wanted)
        {
            return;
        }
        if let Some((first, engine)) = self.first.take_if(|(first, _)| !first.was_asked_for) {
            engine.stop(sleep(MAKE_ROOM_WITHIN)).await;
            let state = match first.name == wanted {
                true => State::Elsewhere {
                    message: format!("{wanted} is one of the models that were loaded"),
                },
                false => dropped(&first),
            };
            self.state.send_replace(state);
        }
    }

    /// Serves the first model no more, once it has answered what it was asked.
    fn drop_first(&mut self) {
        if let Some((first, engine)) = self.first.take() {
            let (joiner, state) = (self.party.joiner(), self.state.clone());
            let name = first.name.clone();
            let task = tokio::spawn(async move {
                engine.stop(std::future::pending()).await;
                joiner.wants_no_more(&first.name);
                state.send_replace(dropped(&first));
            });
            self.ending = Some((name, task));
        }
    }
}

/// What becomes of a model that was dropped.
fn dropped(first: &First) -> State {
    let name = &first.name;
    State::Elsewhere {
        message: format!("{name} was dropped here: `mesh-llm load {name}` serves it again"),
    }
}
