//! An engine from the beginning of a phase to its end.

use super::super::mesh::Directive;
use super::super::mesh::split::Group;
use super::phases::Now;
use super::{InMesh, Taken, Task};
use crate::engine::restarts::Restarts;
use crate::engine::{Engine, Failure, Launch, State, Wish};
use crate::mesh::Joining;
use crate::mesh::id::NodeId;
use llama_engine::server::options::Options;
use llama_engine::status::Refusal;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How long a model goes on to be served here while requests that run are in the way of another arrangement.
const SERVE_ON_FOR: Duration = Duration::from_secs(60);

/// How long requests to a model that nobody asked for may take before its memory is lent: less than who wants it waits.
const MAKE_ROOM_WITHIN: Duration = Duration::from_secs(45);

/// How long requests that run may take before another arrangement replaces the one that answers them.
const DRAIN_WITHIN: Duration = Duration::from_secs(600);

/// How long requests that other machines sent may take before the daemon ends.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How often an engine tries what is lent before it is lent anew.
const TRIES: u32 = 3;

/// Why a phase is over.
pub(super) enum Over {
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
    /// Leaves of what models may take here what others have.
    fn beside_others(&self, mut launch: Launch) -> Launch {
        let Some(in_mesh) = &self.service.in_mesh else {
            return launch;
        };
        let own = in_mesh.own_bytes.borrow();
        let others = own.iter().filter(|(model, _)| *model != self.model());
        let taken = others.map(|(_, bytes)| *bytes).sum::<u64>();
        let lent = in_mesh.lent.borrow().iter().map(|lent| lent.bytes).sum::<u64>();
        let unasked = match in_mesh.asked {
            // As long as it is not known what it takes, it makes room.
            Some(_) => in_mesh.unasked.borrow().at_least(),
            None => 0,
        };
        if let Some(machine) = &*in_mesh.machine.borrow() {
            let taken = taken.saturating_add(lent).saturating_add(unasked);
            let Options {
                max_memory, max_vram, ..
            } = &mut launch.options;
            // Where its user sets no limit, what is free is found out by the engine.
            *max_memory = max_memory.map(|most| most.min(machine.memory_beside(taken)).max(1));
            *max_vram = max_vram.map(|most| most.min(machine.gpus_beside(taken)).max(1));
        }
        launch
    }

    /// Runs an engine until the phase is over, and ends it; whether that end was cut short.
    pub(super) async fn serve(
        &mut self,
        now: &Now,
        launch: Launch,
        group: Option<&mut Group>,
    ) -> (Over, bool) {
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
        if let Over::Wished = over {
            // Others hear by that that they are to ask elsewhere.
            self.service.state.send_replace(State::Stopping);
            self.finish(&states, &mut wishes, Wish::Die, END_WITHIN).await;
        }
        let cut = match over {
            Over::Broken { .. } | Over::Tight { .. } => {
                // What it does leads nowhere.
                engine.stop(std::future::ready(())).await;
                false
            }
            _ => engine.stop(died).await,
        };
        (over, cut)
    }

    /// Lets the engine answer what it was asked before another arrangement takes its place.
    async fn move_on(&mut self, states: &watch::Receiver<State>, wishes: &mut watch::Receiver<Wish>) {
        let next = self.now();
        if matches!(next, Now::Plan(Directive::Alone | Directive::Host { .. })) {
            // Nobody else would answer meanwhile.
            self.finish(states, wishes, Wish::Finish, SERVE_ON_FOR).await;
        }
        let limit = match next {
            Now::Yields { .. } => MAKE_ROOM_WITHIN,
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

    /// Whether an engine in this state only looks whether there is room again for what nobody asked for: as long as that
    /// is not clear, nobody needs to hear of it.
    fn is_only_tried(&self, state: &State) -> bool {
        let is_elsewhere = matches!(*self.service.state.borrow(), State::Elsewhere { .. });
        matches!(state, State::Starting) && is_elsewhere && self.asked().is_none()
    }

    /// Whether this machine is there for others, too: machines that serve belong to its mesh, whether they are there or not,
    /// or it is about to join one.
    async fn has_others(&self) -> bool {
        let Some(InMesh { mesh, .. }) = &self.service.in_mesh else {
            return false;
        };
        let joining = mesh.joining().borrow().clone();
        match joining {
            Joining::Calling { .. } => true,
            Joining::Refused(_) => false,
            Joining::In => {
                let members = mesh.members().await;
                let mut others = members.iter().filter(|member| member.node != mesh.id());
                others.any(|member| member.role.serves())
            }
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
        let nodes: Vec<NodeId> = group.iter().flat_map(|group| group.workers()).collect();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Failed(failure) => {
                    let is_short = failure.exit.0 == Refusal::Memory.exit_code();
                    // One that nobody asked for fitted before, and may again; or is not what this machine is there for.
                    let may_fit_later =
                        self.asked().is_some() || self.may_fit_later || self.has_others().await;
                    return match is_short && may_fit_later {
                        true => Over::Short {
                            message: failure.message,
                        },
                        false => Over::Failed(failure),
                    };
                }
                State::Ready(serving) => {
                    self.restarts = Restarts::default();
                    self.may_fit_later = true;
                    self.was_lost = false;
                    match group.as_deref() {
                        Some(group) => self.announce_layers(group, &serving.ready.node_layers),
                        // It has chosen its context: now it is known what it takes.
                        None => {
                            let bytes = serving.ready.model_bytes + serving.ready.context_bytes;
                            self.takes(Taken::Bytes(bytes));
                        }
                    }
                    self.service.state.send_replace(State::Ready(serving));
                }
                other => {
                    self.was_lost |= matches!(other, State::Lost { .. });
                    if let State::Waiting { message } = &other
                        && group.is_some()
                    {
                        in_vain += 1;
                        if in_vain >= TRIES {
                            let message = message.clone();
                            return Over::Tight { message };
                        }
                    }
                    if !self.is_only_tried(&other) {
                        self.service.state.send_replace(other);
                    }
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
                () = self.gives_way(now, &nodes) => return Over::Changed,
                _ = wishes.wait_for(|wish| *wish > Wish::Serve) => return Over::Wished,
            }
        }
    }
}
