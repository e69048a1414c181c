//! What a model's task does, phase by phase, as the plan says.

use super::super::mesh::split::{FormError, Group, Wanted};
use super::super::mesh::{Directive, MOST_EPOCH, newest_epoch};
use super::running::Over;
use super::{AskedFor, Shortage, Taken, Task};
use crate::engine::{MORE_PEERS, State, Wish};
use crate::mesh::Mesh;
use crate::mesh::state::{GroupState, GroupWorker};
use llama_engine::rpc::plan::Shares;
use llama_engine::size::size;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::timeout;

/// How long a model waits before what was found out about its room is forgotten: other programs end, too.
const FORGET_SHORTAGE_AFTER: Duration = Duration::from_secs(60);

/// What this machine does at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Now {
    Plan(Directive),
    /// Others want its memory, and nobody asked it to serve this.
    Yields {
        message: String,
    },
    /// The plan is not made yet.
    Unknown,
}

impl Now {
    /// Whether both are the same to do.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plan(directive), Self::Plan(other)) => directive.is_as(other),
            _ => self == other,
        }
    }

    /// How the plan divides the layers of the group whose host this machine is.
    fn shares(&self) -> Option<&Shares> {
        match self {
            Self::Plan(Directive::Host { shares, .. }) => Some(shares),
            _ => None,
        }
    }
}

impl Task {
    /// Serves until it is told to end; whether the end was cut short. What it had of this machine is free then.
    pub(super) async fn run(mut self) -> bool {
        let cut = self.phases().await;
        self.takes(Taken::Nothing);
        self.end_group();
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
                Now::Plan(Directive::Host { ref workers, .. }) => {
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
                Now::Yields { ref message } => {
                    self.may_fit_later = true;
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

    pub(super) fn model(&self) -> &str {
        &self.service.launch.options.model_name
    }

    fn missing(&self, need: u64, have: u64) -> String {
        let (need, have) = (size(need), size(have));
        format!("{MORE_PEERS}: need {need} for {}, have {have}", self.model())
    }

    /// What is to be done.
    pub(super) fn now(&mut self) -> Now {
        let Some(in_mesh) = &mut self.service.in_mesh else {
            return Now::Plan(Directive::Alone);
        };
        if in_mesh.machine.borrow_and_update().is_none() {
            // What is free of its GPUs is seen once nobody measures them.
            return Now::Unknown;
        }
        let lent = in_mesh.lent.borrow_and_update().first().cloned();
        let yields = in_mesh.yields.borrow_and_update().clone();
        match (&in_mesh.asked, lent) {
            (None, Some(lent)) => Now::Yields {
                message: format!(
                    "this machine's memory serves {}, whose host is {}",
                    lent.model,
                    lent.host.fmt_short()
                ),
            },
            (None, None) => match yields.first() {
                Some(model) => Now::Yields {
                    message: format!("this machine serves {model}, which somebody wants"),
                },
                None => Now::Plan(Directive::Alone),
            },
            (Some(_), _) => {
                let model = &self.service.launch.options.model_name;
                let directive = in_mesh.directives.borrow_and_update().get(model).cloned();
                directive.map_or(Now::Unknown, Now::Plan)
            }
        }
    }

    /// Waits until there is something else to do than `now`, and says meanwhile how the plan divides the group's layers.
    pub(super) async fn changed(&mut self, now: &Now) {
        loop {
            let next = self.now();
            if !next.is_as(now) {
                return;
            }
            if let Now::Plan(Directive::Host { workers, shares }) = &next {
                self.announce_shares(workers, shares);
            }
            let Some(in_mesh) = &mut self.service.in_mesh else {
                return std::future::pending().await;
            };
            let changed = tokio::select! {
                changed = in_mesh.directives.changed() => changed,
                changed = in_mesh.lent.changed() => changed,
                changed = in_mesh.yields.changed() => changed,
                Ok(()) = in_mesh.machine.changed() => Ok(()),
            };
            if changed.is_err() {
                // The mesh is being left, and so the daemon ends.
                return std::future::pending().await;
            }
        }
    }

    /// Serves nothing meanwhile.
    async fn idle(&mut self, now: Now, state: State) -> Option<bool> {
        // Who hears of the state looks what is free.
        self.takes(Taken::Nothing);
        self.service.state.send_replace(state);
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

    /// Waits for others. What was found out about room need not be so any more after a while, or once another model makes
    /// room: then it is tried again.
    async fn wait(&mut self, now: Now, state: State) -> Option<bool> {
        let room = self.room_to_come();
        let over = tokio::select! {
            over = timeout(FORGET_SHORTAGE_AFTER, self.idle(now, state)) => over.ok(),
            () = room => None,
        };
        if over.is_none() {
            self.note_shortage(|short| *short = Shortage::default());
        }
        over.flatten()
    }

    /// Waits until another model is told to make room for this one; for ever where that is so already.
    fn room_to_come(&self) -> impl Future<Output = ()> + use<> {
        let model = self.model().to_owned();
        let in_mesh = self.service.in_mesh.as_ref();
        let yields = in_mesh.map(|in_mesh| in_mesh.yields.clone());
        let to_come = yields.filter(|yields| !yields.borrow().contains(&model));
        async move {
            if let Some(mut yields) = to_come
                && yields
                    .wait_for(|made_for| made_for.contains(&model))
                    .await
                    .is_ok()
            {
                return;
            }
            std::future::pending().await
        }
    }

    /// Says what of this machine's memory its own model takes.
    pub(super) fn takes(&self, taken: Taken) {
        let Some(in_mesh) = &self.service.in_mesh else {
            return;
        };
        if in_mesh.asked.is_none() {
            in_mesh.unasked.send_replace(taken);
        } else {
            let model = self.model().to_owned();
            in_mesh.own_bytes.send_modify(|own| {
                own.insert(model, taken.at_least());
            });
        }
    }

    /// Whether this machine lends to others.
    fn lends(&self) -> bool {
        let in_mesh = self.service.in_mesh.as_ref();
        in_mesh.is_some_and(|in_mesh| !in_mesh.lent.borrow().is_empty())
    }

    pub(super) fn asked(&self) -> Option<&AskedFor> {
        self.service
            .in_mesh
            .as_ref()
            .and_then(|in_mesh| in_mesh.asked.as_ref())
    }

    fn mesh(&self) -> Option<Mesh> {
        self.service.in_mesh.as_ref().map(|in_mesh| in_mesh.mesh.clone())
    }

    /// Waits while the model that nobody asked for makes room for this one; else what comes instead.
    async fn until_room(&mut self, now: &Now) -> ControlFlow<Option<bool>> {
        let Some(in_mesh) = &self.service.in_mesh else {
            return ControlFlow::Continue(());
        };
        if in_mesh.asked.is_none() {
            return ControlFlow::Continue(());
        }
        let (mut unasked, mut wishes) = (in_mesh.unasked.subscribe(), self.wishes.clone());
        let (mut yields, model) = (in_mesh.yields.clone(), self.model().to_owned());
        tokio::select! {
            _ = yields.wait_for(|made_for| !made_for.contains(&model)) => ControlFlow::Continue(()),
            _ = unasked.wait_for(|taken| *taken == Taken::Nothing) => ControlFlow::Continue(()),
            () = self.changed(now) => ControlFlow::Break(None),
            _ = wishes.wait_for(|wish| *wish > Wish::Serve) => ControlFlow::Break(Some(false)),
        }
    }

    async fn alone(&mut self, now: Now) -> Option<bool> {
        self.takes(match self.asked() {
            Some(asked) => Taken::Bytes(asked.bytes),
            None => Taken::Unknown,
        });
        if let ControlFlow::Break(instead) = self.until_room(&now).await {
            return instead;
        }
        let launch = self.service.launch.clone();
        let (over, cut) = self.serve(&now, launch, None).await;
        match over {
            // What is lent comes back.
            Over::Short { message } if self.lends() => {
                let message = format!("{MORE_PEERS}: {message}");
                self.pause(now, State::Waiting { message }).await
            }
            Over::Short { message } if self.asked().is_none() => {
                tracing::debug!(message, "nobody asked for it, and it does not fit");
                let message = format!(
                    "nobody asked for {}, and this machine has no memory for it now: it is tried again each minute",
                    self.model()
                );
                self.wait(now, State::Elsewhere { message }).await
            }
            Over::Short { message } => {
                tracing::debug!(message, "it does not fit on this machine alone");
                self.note_shortage(|short| short.not_alone = true);
                let message = format!("{MORE_PEERS}: {message}");
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
        let mut wishes = self.wishes.clone();
        if !self.was_lost {
            tokio::select! {
                () = self.until_copies(&now, &workers) => {}
                _ = wishes.wait_for(|wish| *wish > Wish::Serve) => return Some(false),
            }
            if !self.now().is_as(&now) {
                return None;
            }
        }
        self.takes(Taken::Bytes(asked.bytes));
        if let ControlFlow::Break(instead) = self.until_room(&now).await {
            return instead;
        }
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
        let next = self.now();
        let shares = next.shares().filter(|_| next.is_as(&now))?;
        self.announce(&group, shares);
        let (over, cut) = self.serve(&now, launch, Some(&mut group)).await;
        self.end_group();
        drop(group);
        match over {
            Over::Broken { message } => {
                self.was_lost = true;
                self.pause(now, State::Lost { message }).await
            }
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

    /// Tells the mesh which group serves the model, and how the plan divides it.
    fn announce(&self, group: &Group, shares: &Shares) {
        let workers = group.workers().map(|node| GroupWorker { node, layers: 0 });
        let mut told = GroupState {
            model: self.model().to_owned(),
            epoch: group.epoch(),
            own_layers: 0,
            workers: workers.collect(),
            planned: Vec::new(),
            planned_head: 0,
        };
        plan_as(&mut told, shares);
        if let Some(in_mesh) = &self.service.in_mesh {
            in_mesh.groups.send_modify(|groups| {
                groups.retain(|group| group.model != self.model());
                groups.push(told);
            });
        }
    }

    /// Tells the mesh how the plan divides the model of the group that serves it, if that is the one of these workers.
    fn announce_shares(&self, workers: &[Wanted], shares: &Shares) {
        self.change_group(|told| {
            let nodes = told.workers.iter().map(|worker| worker.node);
            if nodes.eq(workers.iter().map(|worker| worker.node)) {
                plan_as(told, shares);
            }
        });
    }

    /// Tells the mesh how many layers each machine of the group really has, this one first.
    pub(super) fn announce_layers(&self, group: &Group, layers: &[u32]) {
        let mut layers = layers.iter().copied();
        let mut next = || layers.next().unwrap_or(0);
        let own_layers = next();
        let workers = group.workers().map(|node| GroupWorker { node, layers: next() });
        let workers = workers.collect();
        self.change_group(|told| (told.own_layers, told.workers) = (own_layers, workers));
    }

    /// Changes what is told of the group that serves the model.
    fn change_group(&self, change: impl FnOnce(&mut GroupState)) {
        if let Some(in_mesh) = &self.service.in_mesh {
            in_mesh.groups.send_if_modified(|groups| {
                let told = groups.iter_mut().find(|group| group.model == self.model());
                told.is_some_and(|told| {
                    let before = told.clone();
                    change(told);
                    *told != before
                })
            });
        }
    }

    /// Tells the mesh that no group serves the model.
    fn end_group(&self) {
        if let Some(in_mesh) = &self.service.in_mesh {
            in_mesh
                .groups
                .send_modify(|groups| groups.retain(|group| group.model != self.model()));
        }
    }
}

/// Writes down how the plan divides the layers.
fn plan_as(told: &mut GroupState, Shares { layers, head }: &Shares) {
    told.planned.clone_from(layers);
    told.planned_head = head.node() as u32;
}

/// What a worker is asked for: the whole model, and what contexts and a process take; twice as much for each time that it
/// was too tight. The engine takes what it needs of that.
fn lend_bytes(model: u64, tight: u32) -> u64 {
    const BESIDE: u64 = 1 << 30;
    let once = model.saturating_add(model / 4).saturating_add(BESIDE);
    once.saturating_mul(1 << tight.min(16))
}
