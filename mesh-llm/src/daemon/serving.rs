//! Serves this machine's model as the plan says: alone, with machines of the mesh, or not for the time being.
//!
//! One task owns the engine and what others lend it; each arrangement is a phase of its own, which ends when the plan
//! says something else, or a machine that lends is gone.

use super::mesh::split::{FormError, Group, Lent, Wanted};
use super::mesh::{Directive, Directives, MOST_EPOCH, newest_epoch};
use crate::engine::restarts::Restarts;
use crate::engine::{Engine, Failure, Launch, MORE_PEERS, State};
use crate::mesh::Mesh;
use crate::mesh::state::{GroupState, GroupWorker};
use llama_engine::status::Refusal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long a model waits before what was found out about its room is forgotten: other programs end, too.
const FORGET_SHORTAGE_AFTER: Duration = Duration::from_secs(60);

/// How long a model goes on to be served here while requests that run are in the way of another arrangement.
const SERVE_ON_FOR: Duration = Duration::from_secs(60);

/// How long requests to a model that nobody asked for may take before its memory is lent: less than who wants it waits.
const MAKE_ROOM_WITHIN: Duration = Duration::from_secs(45);

/// How often an engine tries what is lent before it is lent anew.
const TRIES: u32 = 3;

/// How long requests that run may take before another arrangement replaces the one that answers them.
const DRAIN_WITHIN: Duration = Duration::from_secs(600);

/// How long requests that other machines sent may take before the daemon ends.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What is told of where the model turned out not to fit, to be planned with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shortage {
    /// The machine alone has no room for it, whatever was reckoned.
    pub(super) not_alone: bool,
    /// It takes so many bytes more than was reckoned.
    pub(super) more: u64,
}

/// Something of each model, by its name.
pub(super) type ByModel<T> = BTreeMap<String, T>;

/// Takes lines of the engine's log.
pub(super) type LogTo = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// What a model that may be split over the mesh needs to be served.
pub(super) struct InMesh {
    /// The mesh.
    pub(super) mesh: Mesh,
    /// What the plan says of each model.
    pub(super) directives: watch::Receiver<Directives>,
    /// Whom this machine lends to.
    pub(super) lent: watch::Receiver<Vec<Lent>>,
    /// Told whether a model that nobody asked for is in the way of what is lent.
    pub(super) in_the_way: watch::Sender<bool>,
    /// Told how many bytes each model takes here that this machine was told to serve.
    pub(super) own_bytes: watch::Sender<ByModel<u64>>,
    /// Told of the group that serves the model.
    pub(super) groups: watch::Sender<Vec<GroupState>>,
    /// Told where it does not fit.
    pub(super) shortages: watch::Sender<ByModel<Shortage>>,
    /// The model as its user asked for it; none: nobody did.
    pub(super) asked: Option<AskedFor>,
    /// Where fingerprints of models are remembered.
    pub(super) fingerprints: PathBuf,
}

/// A model that this machine was told to serve.
#[derive(Debug, Clone)]
pub(super) struct AskedFor {
    /// Bytes that it needs, as far as its header says.
    pub(super) bytes: u64,
    /// Whether it is to be split also where it fits.
    pub(super) is_spread: bool,
}

/// What is to be served.
pub(super) struct Service {
    /// How the engine is started where it is alone.
    pub(super) launch: Launch,
    /// The mesh; none: this machine is alone, or its user says with whom it splits the model.
    pub(super) in_mesh: Option<InMesh>,
    /// Told what becomes of it.
    pub(super) state: watch::Sender<State>,
    /// Where the engine's log goes.
    pub(super) log: LogTo,
}

/// What is wished of the service; each goes further than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Serve,
    Finish,
    Die,
}

/// A service that runs.
pub(super) struct Served {
    wish: watch::Sender<Wish>,
    state: watch::Receiver<State>,
    task: JoinHandle<bool>,
}

impl Served {
    /// Begins.
    pub(super) fn start(service: Service) -> Self {
        let (wish, wishes) = watch::channel(Wish::Serve);
        let state = service.state.subscribe();
        let task = Task {
            service,
            wishes,
            restarts: Restarts::default(),
            last_epoch: 0,
            tight: 0,
        };
        Self {
            wish,
            state,
            task: tokio::spawn(task.run()),
        }
    }

    /// What becomes of the model.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Ends the engine, which finishes what it does, unless `impatience` is over first; returns whether it was.
    pub(super) async fn stop(self, impatience: impl Future<Output = ()>) -> bool {
        let Self { wish, mut task, .. } = self;
        wish.send_replace(Wish::Finish);
        let ended = tokio::select! {
            ended = &mut task => ended,
            () = impatience => {
                wish.send_replace(Wish::Die);
                task.await
            }
        };
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, "serving failed");
            false
        })
    }
}

struct Task {
    service: Service,
    wishes: watch::Receiver<Wish>,
    restarts: Restarts,
    last_epoch: u64,
    /// How often a worker had lent too little.
    tight: u32,
}

/// What this machine does at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Now {
    Plan(Directive),
    /// It lends to somebody, and nobody asked it to serve anything.
    Lends {
        message: String,
    },
    /// The plan is not made yet.
    Unknown,
}

/// Why a phase is over.
enum Over {
    /// There is something else to do.
    Changed,
    /// A machine of the group does not lend any more, in words.
    Broken { message: String },
    /// The engine cannot use what is lent, in words.
    Tight { message: String },
    /// The model does not fit, in words.
    Short { message: String },
    /// The daemon ends; nothing is left to be done.
    Wished,
    /// The engine will not run again.
    Failed(Failure),
}

impl Task {
    /// Serves until it is told to end; whether the end was cut short. What it had of this machine is free then.
    async fn run(mut self) -> bool {
        let cut = self.phases().await;
        self.takes(0, false);
        self.tell_group(None);
        if let Some(in_mesh) = &self.service.in_mesh {
            let model = self.model();
            in_mesh.own_bytes.send_modify(|own| {
                own.remove(model);
            });
            in_mesh.shortages.send_modify(|all| {
                all.remove(model);
            });
        }
        cut
    }

    async fn phases(&mut self) -> bool {
        loop {
            let now = self.now();
            tracing::debug!(?now, "what this machine does");
            let cut = match now {
                Now::Plan(Directive::Alone) => self.alone(now).await,
                Now::Plan(Directive::Host(ref workers)) => {
                    let workers = workers.clone();
                    self.host(now, workers).await
                }
                Now::Plan(Directive::Elsewhere { ref by }) => {
                    let message = format!("{} is served by {by}", self.model());
                    self.idle(now, State::Elsewhere { message }).await
                }
                Now::Plan(Directive::Wait { need, have }) => {
                    let message = self.missing(need, have);
                    self.wait(now, State::Waiting { message }).await
                }
                Now::Lends { ref message } => {
                    let message = message.clone();
                    self.idle(now, State::Elsewhere { message }).await
                }
                Now::Unknown => self.idle(now, State::Starting).await,
            };
            if let Some(cut) = cut {
                return cut;
            }
        }
    }

    fn model(&self) -> &str {
        &self.service.launch.options.model_name
    }

    fn missing(&self, need: u64, have: u64) -> String {
        let (need, have) = (size(need), size(have));
        format!("{MORE_PEERS}: need {need} for {}, have {have}", self.model())
    }

    /// What is to be done.
    fn now(&mut self) -> Now {
        let Some(in_mesh) = &mut self.service.in_mesh else {
            return Now::Plan(Directive::Alone);
        };
        let lent = in_mesh.lent.borrow_and_update().first().cloned();
        match (&in_mesh.asked, lent) {
            (None, Some(lent)) => Now::Lends {
                message: format!(
                    "this machine's memory serves {}, whose host is {}",
                    lent.model,
                    lent.host.fmt_short()
                ),
            },
            (None, None) => Now::Plan(Directive::Alone),
            (Some(_), _) => {
                let model = &self.service.launch.options.model_name;
                let directive = in_mesh.directives.borrow_and_update().get(model).cloned();
                directive.map_or(Now::Unknown, Now::Plan)
            }
        }
    }

    /// Waits until there is something else to do than `now`.
    async fn changed(&mut self, now: &Now) {
        while self.now() == *now {
            let Some(in_mesh) = &mut self.service.in_mesh else {
                return std::future::pending().await;
            };
            let changed = tokio::select! {
                changed = in_mesh.directives.changed() => changed,
                changed = in_mesh.lent.changed() => changed,
            };
            if changed.is_err() {
                // The mesh is being left, and so the daemon ends.
                return std::future::pending().await;
            }
        }
    }

    /// Serves nothing meanwhile.
    async fn idle(&mut self, now: Now, state: State) -> Option<bool> {
        self.service.state.send_replace(state);
        self.takes(0, false);
        let mut wishes = self.wishes.clone();
        tokio::select! {
            () = self.changed(&now) => None,
            _ = wishes.wait_for(|wish| *wish > Wish::Serve) => Some(false),
        }
    }

    /// Says where the model turned out not to fit.
    fn note_shortage(&self, note: impl FnOnce(&mut Shortage)) {
        if let Some(in_mesh) = &self.service.in_mesh {
            let model = self.model().to_owned();
            in_mesh
                .shortages
                .send_modify(|all| note(all.entry(model).or_default()));
        }
    }

    /// Waits for others. What was found out about room need not be so any more after a while: then it is tried again.
    async fn wait(&mut self, now: Now, state: State) -> Option<bool> {
        match timeout(FORGET_SHORTAGE_AFTER, self.idle(now, state)).await {
            Ok(over) => over,
            Err(_) => {
                self.note_shortage(|short| *short = Shortage::default());
                None
            }
        }
    }

    /// Says what of this machine's memory its own model takes.
    fn takes(&self, bytes: u64, is_in_the_way: bool) {
        if let Some(in_mesh) = &self.service.in_mesh {
            let model = self.model().to_owned();
            in_mesh.own_bytes.send_modify(|own| {
                own.insert(model, bytes);
            });
            if in_mesh.asked.is_none() {
                in_mesh.in_the_way.send_replace(is_in_the_way);
            }
        }
    }

    /// Whether this machine lends to others.
    fn lends(&self) -> bool {
        let in_mesh = self.service.in_mesh.as_ref();
        in_mesh.is_some_and(|in_mesh| !in_mesh.lent.borrow().is_empty())
    }

    fn asked(&self) -> Option<&AskedFor> {
        self.service
            .in_mesh
            .as_ref()
            .and_then(|in_mesh| in_mesh.asked.as_ref())
    }

    fn mesh(&self) -> Option<Mesh> {
        self.service.in_mesh.as_ref().map(|in_mesh| in_mesh.mesh.clone())
    }

    async fn alone(&mut self, now: Now) -> Option<bool> {
        let bytes = self.asked().map(|asked| asked.bytes);
        self.takes(bytes.unwrap_or(0), bytes.is_none());
        let launch = self.service.launch.clone();
        let (over, cut) = self.serve(&now, launch, None).await;
        match over {
            // What is lent comes back.
            Over::Short { message } if self.lends() => self.pause(now, State::Waiting { message }).await,
            Over::Short { message } => {
                tracing::debug!(message, "it does not fit on this machine alone");
                self.note_shortage(|short| short.not_alone = true);
                self.wait(now, State::Waiting { message }).await
            }
            over => self.after(over, cut),
        }
    }

    /// What comes after a phase: the next one, or the end.
    fn after(&self, over: Over, cut: bool) -> Option<bool> {
        match over {
            Over::Changed | Over::Broken { .. } | Over::Tight { .. } | Over::Short { .. } => None,
            Over::Wished => Some(cut),
            Over::Failed(failure) => {
                self.service.state.send_replace(State::Failed(failure));
                Some(cut)
            }
        }
    }

    async fn host(&mut self, now: Now, workers: Vec<Wanted>) -> Option<bool> {
        let (Some(asked), Some(mesh)) = (self.asked().cloned(), self.mesh()) else {
            return None;
        };
        self.takes(asked.bytes, false);
        let names: Vec<&str> = workers.iter().map(|worker| worker.label.as_str()).collect();
        let message = format!("{} to lend its memory for {}", names.join(", "), self.model());
        let seen = newest_epoch(&mesh.view().borrow(), self.model());
        let epoch = self.last_epoch.max(seen).saturating_add(1);
        self.last_epoch = epoch;
        tracing::info!(
            workers = names.join(", "),
            epoch,
            "asking other machines to lend their memory"
        );
        if !matches!(*self.service.state.borrow(), State::Lost { .. }) {
            self.service.state.send_replace(State::Waiting { message });
        }
        let model = self.model().to_owned();
        let bytes = lend_bytes(asked.bytes, self.tight);
        let forming = async move { Group::form(&mesh, &model, epoch, bytes, workers).await };
        let mut wishes = self.wishes.clone();
        let formed = tokio::select! {
            formed = forming => formed,
            () = self.changed(&now) => return None,
            _ = wishes.wait_for(|wish| *wish > Wish::Serve) => return Some(false),
        };
        let mut group = match formed {
            Ok(group) => group,
            Err(error) => {
                if let FormError::Stale { newest } = error
                    && newest <= MOST_EPOCH
                {
                    self.last_epoch = self.last_epoch.max(newest);
                }
                let message = error.to_string();
                return self.pause(now, State::Waiting { message }).await;
            }
        };
        let mut launch = self.service.launch.clone();
        launch.options.rpc = group.names();
        launch.options.rpc_secret = Some(group.secret());
        launch.options.door = Some(group.door());
        launch.options.even_split = asked.is_spread;
        launch.options.fingerprints = self
            .service
            .in_mesh
            .as_ref()
            .map(|mesh| mesh.fingerprints.clone());
        self.tell_group(Some((&group, &[])));
        let (over, cut) = self.serve(&now, launch, Some(&mut group)).await;
        self.tell_group(None);
        drop(group);
        match over {
            Over::Broken { message } => self.pause(now, State::Lost { message }).await,
            Over::Tight { message } => {
                self.tight += 1;
                self.pause(now, State::Waiting { message }).await
            }
            Over::Short { message } => {
                let more = asked.bytes / 10 + 1;
                self.note_shortage(|short| short.more = (short.more + more).min(asked.bytes));
                self.pause(now, State::Waiting { message }).await
            }
            over => self.after(over, cut),
        }
    }

    /// Tries the same again after a while, if there is nothing else to do by then.
    async fn pause(&mut self, now: Now, state: State) -> Option<bool> {
        let pause = self.restarts.unreached();
        let idle = self.idle(now, state);
        timeout(pause, idle).await.unwrap_or(None)
    }

    /// Tells the mesh which group serves the model, with what of it each has.
    fn tell_group(&self, group: Option<(&Group, &[u32])>) {
        let Some(in_mesh) = &self.service.in_mesh else {
            return;
        };
        let told = group.map(|(group, layers)| {
            let layers_of = |place: usize| layers.get(place).copied().unwrap_or(0);
            let workers = group.workers().zip(1..).map(|(node, place)| GroupWorker {
                node,
                layers: layers_of(place),
            });
            GroupState {
                model: self.model().to_owned(),
                epoch: group.epoch(),
                own_layers: layers_of(0),
                workers: workers.collect(),
            }
        });
        in_mesh.groups.send_modify(|groups| {
            groups.retain(|group| group.model != self.model());
            groups.extend(told);
        });
    }

    /// Leaves of what models may take here what others have.
    fn beside_others(&self, mut launch: Launch) -> Launch {
        if let (Some(in_mesh), Some(most)) = (&self.service.in_mesh, launch.options.max_memory) {
            let own = in_mesh.own_bytes.borrow();
            let others = own.iter().filter(|(model, _)| *model != self.model());
            let taken = others.map(|(_, bytes)| *bytes).sum::<u64>();
            let lent = in_mesh.lent.borrow().iter().map(|lent| lent.bytes).sum::<u64>();
            launch.options.max_memory = Some(most.saturating_sub(taken.saturating_add(lent)).max(1));
        }
        launch
    }

    /// Runs an engine until the phase is over, and ends it; whether that end was cut short.
    async fn serve(&mut self, now: &Now, launch: Launch, group: Option<&mut Group>) -> (Over, bool) {
        let launch = self.beside_others(launch);
        let (inner, mut states) = watch::channel(State::Starting);
        let log = self.service.log.clone();
        let engine = Engine::start(launch, inner, move |line| log(line));
        let over = self.follow(now, &mut states, group).await;
        let mut wishes = self.wishes.clone();
        if let Over::Changed = over {
            self.move_on(&states, &mut wishes).await;
        }
        let mut impatient = self.wishes.clone();
        let died = async move {
            // The service is dropped only when it has ended.
            let _ = impatient.wait_for(|wish| *wish == Wish::Die).await;
        };
        match over {
            Over::Broken { .. } | Over::Tight { .. } => {
                // What it does leads nowhere.
                engine.stop(std::future::ready(())).await;
                (over, false)
            }
            Over::Wished => {
                // Others hear by that that they are to ask elsewhere.
                self.service.state.send_replace(State::Stopping);
                self.finish(&states, &mut wishes, Wish::Die, END_WITHIN).await;
                let cut = engine.stop(died).await;
                (over, cut)
            }
            over => {
                let cut = engine.stop(died).await;
                (over, cut)
            }
        }
    }

    /// Lets the engine answer what it was asked before another arrangement takes its place.
    async fn move_on(&mut self, states: &watch::Receiver<State>, wishes: &mut watch::Receiver<Wish>) {
        let next = self.now();
        if matches!(next, Now::Plan(Directive::Alone | Directive::Host(_))) {
            // Nobody else would answer meanwhile.
            self.finish(states, wishes, Wish::Finish, SERVE_ON_FOR).await;
        }
        let limit = match next {
            Now::Lends { .. } => MAKE_ROOM_WITHIN,
            Now::Plan(_) | Now::Unknown => DRAIN_WITHIN,
        };
        let message = format!("{} is moving to other machines", self.model());
        self.service.state.send_replace(State::Elsewhere { message });
        self.finish(states, wishes, Wish::Finish, limit).await;
    }

    /// Waits until the engine has answered what it was asked, also by other machines; not for ever, and not beyond such
    /// a wish.
    async fn finish(
        &self,
        states: &watch::Receiver<State>,
        wishes: &mut watch::Receiver<Wish>,
        beyond: Wish,
        limit: Duration,
    ) {
        let State::Ready(serving) = states.borrow().clone() else {
            return;
        };
        tokio::select! {
            () = serving.upstream.idle() => {}
            () = sleep(limit) => {}
            _ = wishes.wait_for(|wish| *wish >= beyond) => {}
        }
    }

    /// Passes the engine's states on until the phase is over.
    async fn follow(
        &mut self,
        now: &Now,
        states: &mut watch::Receiver<State>,
        mut group: Option<&mut Group>,
    ) -> Over {
        let mut wishes = self.wishes.clone();
        let mut in_vain = 0;
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Failed(failure) => {
                    let is_short = failure.exit.0 == Refusal::Memory.exit_code();
                    return match self.asked() {
                        Some(_) if is_short => Over::Short {
                            message: failure.message,
                        },
                        _ => Over::Failed(failure),
                    };
                }
                State::Ready(serving) => {
                    self.restarts = Restarts::default();
                    match group.as_deref() {
                        Some(group) => self.tell_group(Some((group, &serving.ready.node_layers))),
                        // It has chosen its context: now it is known what it takes.
                        None if self.asked().is_some() => {
                            let bytes = serving.ready.model_bytes + serving.ready.context_bytes;
                            self.takes(bytes, false);
                        }
                        None => {}
                    }
                    self.service.state.send_replace(State::Ready(serving));
                }
                other => {
                    if let State::Waiting { message } = &other
                        && group.is_some()
                    {
                        in_vain += 1;
                        if in_vain >= TRIES {
                            let message = message.clone();
                            return Over::Tight { message };
                        }
                    }
                    self.service.state.send_replace(other);
                }
            }
            let broken = async {
                match group.as_deref_mut() {
                    Some(group) => group.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = states.changed() => if changed.is_err() {
                    return Over::Wished;
                },
                error = broken => return Over::Broken { message: error.to_string() },
                () = self.changed(now) => return Over::Changed,
                _ = wishes.wait_for(|wish| *wish > Wish::Serve) => return Over::Wished,
            }
        }
    }
}

/// Bytes, for people.
fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes => format!("{:.0} MB", bytes / 1e6),
    }
}

/// What a worker is asked for: the whole model, and what contexts and a process take; twice as much for each time that it
/// was too tight. The engine takes what it needs of that.
fn lend_bytes(model: u64, tight: u32) -> u64 {
    const BESIDE: u64 = 1 << 30;
    let once = model.saturating_add(model / 4).saturating_add(BESIDE);
    once.saturating_mul(1 << tight.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(55_040_000_000), "55.0 GB");
        assert_eq!(size(999_000_000), "999 MB");
        assert_eq!(size(0), "0 MB");
    }
}
