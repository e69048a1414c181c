//! The daemon from when its port is open to its end.

use super::api::Api;
use super::mesh::{Party, Serves};
use super::options::options;
use super::report::{self, EngineReport, Offer, Reporter};
use super::serving::{AskedFor, Served, Service};
use super::settings::Settings;
use super::settings::Spread;
use super::signals::Signals;
use super::start::Ending;
use super::state::{Home, RunFolder};
use super::{Error, OwnModel, unexpected};
use crate::engine::{Failure, Launch, State};
use crate::mesh::state::WantState;
use crate::models::Model;
use crate::models::need::Need;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// How long exchanges that run may take to finish after the daemon was told to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// How long clients may take to hear of an engine that failed.
pub(super) const TELL_WITHIN: Duration = Duration::from_secs(1);

/// An engine that ends within this time is not worth a word.
const END_QUIETLY: Duration = Duration::from_millis(500);

/// What ends the daemon from outside.
pub(super) struct Orders {
    pub(super) signals: Signals,
    /// Somebody used `mesh-llm stop`.
    pub(super) stopped: mpsc::Receiver<()>,
}

impl Orders {
    /// The next one.
    async fn next(&mut self) {
        tokio::select! {
            () = self.signals.next() => {}
            Some(()) = self.stopped.recv() => {}
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
}

impl Run<'_> {
    /// Serves a model, for this machine and for others.
    pub(super) async fn serving(
        self,
        own: OwnModel,
        api: Api,
        mut party: Party,
        mut orders: Orders,
    ) -> Result<(), Error> {
        let Run {
            settings,
            reporter,
            address,
            folder,
            home,
            state,
        } = self;
        let OwnModel {
            program,
            library,
            wanted,
            split,
        } = own;
        let had = tokio::select! {
            had = wanted.have(&library, &state, reporter) => had.map_err(Error::from),
            error = party.refused() => Err(error.into()),
            () = orders.next() => {
                state.send_replace(State::Stopping);
                api.finish(sleep(TELL_WITHIN), || {}).await;
                party.finish().await;
                return Ok(());
            }
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
                party.finish().await;
                return Err(error);
            }
        };
        let offer = Offer {
            model: model.id.clone(),
            address,
        };
        let path = model.path.clone();
        // Where its user says with whom it is split, there is nothing to plan.
        let is_planned = split.workers.is_empty();
        let asked = settings
            .model
            .is_some()
            .then(|| asked_for(settings, &model))
            .flatten();
        let in_mesh = match is_planned && (asked.is_some() || settings.model.is_none()) {
            true => party.in_mesh(
                asked.as_ref().map(|(asked, _)| asked.clone()),
                home.fingerprints()?,
            ),
            false => None,
        };
        party.serves(Serves {
            name: model.id.clone(),
            want: asked.filter(|_| is_planned).map(|(_, want)| want),
        });
        let options =
            options(settings, model, draft, split, folder).map_err(unexpected("choosing a secret"))?;
        let log = reporter.clone();
        let engine = Served::start(Service {
            launch: Launch { program, options },
            in_mesh,
            state,
            log: Arc::new(move |line| log.engine_log(line)),
        });
        let parts = Parts {
            orders,
            engine,
            api,
            party,
            saves_slots: settings.engine.slot_save.is_some(),
        };
        // What does not run is not what the next start should take up again.
        let remember = || library.memory().used(&path);
        parts.run(reporter, reporter.engine(offer), remember).await
    }

    /// Only uses what others serve.
    pub(super) async fn using(self, api: Api, mut party: Party, mut orders: Orders) -> Result<(), Error> {
        self.reporter.note(&format!(
            "the models of the mesh answer at {}",
            report::url(self.address)
        ));
        let end = tokio::select! {
            error = party.refused() => Err(error.into()),
            () = orders.next() => Ok(()),
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
    };
    let asked = AskedFor {
        bytes: need.bytes(),
        is_spread,
    };
    Some((asked, want))
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

/// Everything that runs.
struct Parts {
    orders: Orders,
    engine: Served,
    api: Api,
    party: Party,
    /// Whether the engine writes its slots' caches to disk when it ends.
    saves_slots: bool,
}

impl Parts {
    /// Runs until a signal, or until the engine has failed; then stops everything.
    /// `ready` is called each time that the engine becomes ready.
    async fn run(
        mut self,
        reporter: &Reporter,
        mut report: EngineReport,
        ready: impl Fn(),
    ) -> Result<(), Error> {
        let mut state = self.engine.state();
        let end = loop {
            let now = state.borrow_and_update().clone();
            report.state(&now);
            if let State::Ready(_) = now {
                ready();
            }
            if let State::Failed(failure) = now {
                break Err(Error::Engine(failure));
            }
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    break Err(unexpected("supervising the engine")(io::Error::other("its task is gone")));
                },
                error = self.party.refused() => break Err(error.into()),
                () = self.orders.next() => break Ok(()),
            }
        };
        let mut hurry = false;
        match &end {
            Err(_) => self.api.finish(sleep(TELL_WITHIN), || {}).await,
            Ok(()) => hurry = drain(self.api, &mut self.orders, reporter).await,
        }
        let impatience = async {
            if !hurry && timeout(END_QUIETLY, self.orders.next()).await.is_err() {
                if self.saves_slots {
                    reporter.note("saving the slots' caches; a second Ctrl-C ends at once, without them");
                }
                self.orders.next().await;
            }
        };
        if self.engine.stop(impatience).await && self.saves_slots {
            reporter.note(
                "ended at once: caches of slots that were not saved yet are lost, the prompts of their chats will be computed again",
            );
        }
        // After the engine: what it computes with others, and what it answers them, goes through the mesh.
        self.party.finish().await;
        end
    }
}
