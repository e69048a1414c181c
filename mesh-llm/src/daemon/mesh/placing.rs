//! What the plan makes of this machine. Nothing is decided here but when a change of plan counts.

use super::split::Wanted;
use crate::mesh::core::View;
use crate::mesh::id::{NodeId, Role};
use crate::mesh::state::{Gpus, GroupState, ModelState, RoundTrip, SplitPart, Stage, WantState};
use crate::mesh::{Mesh, Offer};
use crate::plan::lease::LEAST_LENT;
use crate::plan::place::{self, Group, Machine, MachineId, Placement, Running, Want, Wish, plan};
use llama_engine::rpc::plan::{self as engine, Head, MOST_LAYERS, Shares, Work};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A change of plan counts once it has stayed for so long: news of one event come one after the other.
const SETTLE: Duration = Duration::from_millis(300);

/// The same, of a change that begins a group: a machine that could serve the model alone takes it on sooner.
const SETTLE_OF_GROUPS: Duration = Duration::from_millis(1_500);

/// What this machine is to do with the model that it was told to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum Directive {
    /// Serve it alone.
    Alone,
    /// Serve it with others.
    Host {
        /// Who lends, in the order of the layers.
        workers: Vec<Wanted>,
        /// How the plan divides the layers, this machine first.
        shares: Shares,
    },
    /// Leave it to others.
    Elsewhere {
        /// What they are called.
        by: String,
    },
    /// Wait for others.
    Wait {
        /// Bytes that it needs.
        need: u64,
        /// Bytes that there are.
        have: u64,
    },
}

impl Directive {
    /// Whether both are the same to do: how the plan divides the layers among a group's machines is nothing to do, but what
    /// others reckon with.
    pub(in crate::daemon) fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host { workers, .. }, Self::Host { workers: others, .. }) => workers == others,
            _ => self == other,
        }
    }
}

/// What a node says of itself, as far as the plan is concerned.
struct Said<'a> {
    node: NodeId,
    role: Role,
    memory: u64,
    gpus: Gpus,
    models: &'a [ModelState],
    split: Option<&'a SplitPart>,
    wants: &'a [WantState],
    groups: &'a [GroupState],
    round_trips: &'a [RoundTrip],
}

/// What this machine is to do with each model that it was told to serve, by name.
pub(in crate::daemon) type Directives = BTreeMap<String, Directive>;

/// Says what changes.
pub(super) async fn follow(
    mesh: Mesh,
    mut offer: watch::Receiver<Offer>,
    directives: watch::Sender<Directives>,
) {
    let mut view = mesh.view();
    let mut last: Option<(place::View, Directives)> = None;
    let mut coming: Option<(Directives, Instant)> = None;
    loop {
        let now = {
            let (view, own) = (view.borrow_and_update(), offer.borrow_and_update());
            let known = known(&view, &own);
            // Most news are of how busy others are, which is nothing to the plan.
            let now = match last.take() {
                Some((before, now)) if before == known => now,
                _ => decide(&view, &own, &known),
            };
            last = Some((known, now.clone()));
            now
        };
        directives.send_if_modified(|told| tell_at_once(told, &now));
        coming = settle(coming, &directives.borrow(), now);
        let due = coming.as_ref().map(|(_, due)| *due);
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = offer.changed() => if changed.is_err() { return },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some((now, _)) = coming.take() {
                    tracing::debug!(plan = ?now, "the plan for this machine has changed");
                    directives.send_replace(now);
                }
            }
        }
    }
}

/// What is to be told, and when, of which `told` is told already: it counts from when it was first seen.
fn settle(
    coming: Option<(Directives, Instant)>,
    told: &Directives,
    now: Directives,
) -> Option<(Directives, Instant)> {
    if *told == now {
        return None;
    }
    if let Some((_, due)) = coming.filter(|(before, _)| is_as(before, &now)) {
        return Some((now, due));
    }
    let begins = |(model, directive): (&String, &Directive)| {
        matches!(directive, Directive::Host { .. })
            && told.get(model).is_none_or(|told| !told.is_as(directive))
    };
    let settle = match now.iter().any(begins) {
        true => SETTLE_OF_GROUPS,
        false => SETTLE,
    };
    Some((now, Instant::now() + settle))
}

/// Whether the same is to be done with the same models.
fn is_as(these: &Directives, others: &Directives) -> bool {
    these.len() == others.len()
        && these
            .iter()
            .all(|(model, directive)| others.get(model).is_some_and(|other| other.is_as(directive)))
}

/// Tells what need not settle: nobody else has to be heard before a machine does alone what it can, and what it was
/// not told to serve any more it does not. Nor is there anything to do where only the layers are divided in another way.
/// Whether there was anything to tell.
fn tell_at_once(told: &mut Directives, now: &Directives) -> bool {
    let before = told.len();
    told.retain(|model, _| now.contains_key(model));
    let mut is_news = told.len() != before;
    for (model, directive) in now {
        let at_once = match told.get(model) {
            None => *directive == Directive::Alone,
            Some(before) => before != directive && before.is_as(directive),
        };
        if at_once {
            told.insert(model.clone(), directive.clone());
            is_news = true;
        }
    }
    is_news
}

/// What this machine is to do.
fn decide(view: &View, own: &Offer, known: &place::View) -> Directives {
    let mut plan = plan(known);
    let models = own.wants.iter().map(|want| &want.model);
    let decided = models.filter_map(|model| {
        let placement = plan.remove(model)?;
        Some((model.clone(), directive(view, placement)))
    });
    decided.collect()
}

fn directive(view: &View, placement: Placement) -> Directive {
    let me = id(view.me);
    let label = |machine: &MachineId| {
        let seen = view.nodes.iter().find(|seen| id(seen.state.node) == *machine);
        seen.map(|seen| (seen.state.node, seen.state.name.clone()))
    };
    let name = |machine: &MachineId| label(machine).map(|(_, name)| name).unwrap_or_default();
    match placement {
        Placement::Alone(machines) if machines.contains(&me) => Directive::Alone,
        Placement::Alone(machines) => Directive::Elsewhere {
            by: machines.first().map(name).unwrap_or_default(),
        },
        Placement::Split(Group {
            host,
            workers,
            shares,
        }) if host == me => {
            let wanted = |machine| {
                let (node, label) = label(machine)?;
                Some(Wanted { node, label })
            };
            let workers = workers.iter().filter_map(wanted).collect();
            Directive::Host { workers, shares }
        }
        Placement::Split(Group { host, .. }) => Directive::Elsewhere { by: name(&host) },
        Placement::Waiting { need, have } => Directive::Wait { need, have },
    }
}

/// No honest machine comes to a greater epoch.
pub(in crate::daemon) const MOST_EPOCH: u64 = 1 << 48;

/// The greatest epoch that another machine says a group of this model has.
pub(in crate::daemon) fn newest_epoch(view: &View, model: &str) -> u64 {
    let groups = view.nodes.iter().flat_map(|seen| &seen.state.groups);
    let epochs = groups
        .filter(|group| group.model == model)
        .map(|group| group.epoch);
    epochs.filter(|epoch| *epoch <= MOST_EPOCH).max().unwrap_or(0)
}

/// A node, as plans call it.
pub(super) fn id(node: NodeId) -> MachineId {
    MachineId(*node.as_bytes())
}

/// What is known, for the plan. Only what nodes say of themselves: so all who heard the same plan the same.
fn known(view: &View, own: &Offer) -> place::View {
    let own = Said {
        node: view.me,
        role: view.role.unwrap_or(Role::Node),
        memory: own.memory.offered_bytes,
        gpus: own.gpus,
        models: &own.models,
        split: own.split.as_ref(),
        wants: &own.wants,
        groups: &own.groups,
        round_trips: &own.round_trips,
    };
    let others = view.nodes.iter().map(|seen| Said {
        node: seen.state.node,
        role: seen.state.role,
        memory: seen.state.memory.offered_bytes,
        gpus: seen.state.gpus,
        models: &seen.state.models,
        split: seen.state.split.as_ref(),
        wants: &seen.state.wants,
        groups: &seen.state.groups,
        round_trips: &seen.state.round_trips,
    });
    let mut known = place::View {
        most_round_trip: Duration::MAX,
        beside_worker: LEAST_LENT,
        ..place::View::default()
    };
    for said in std::iter::once(own).chain(others) {
        add(&mut known, &said);
    }
    known
}

fn add(known: &mut place::View, said: &Said<'_>) {
    let machine = id(said.node);
    known.machines.push(Machine {
        id: machine,
        memory: said.memory,
        bandwidth: said.split.map_or(0, |split| split.bandwidth),
        gpus: engine::Gpus {
            bytes: said.gpus.offered_bytes,
            bandwidth: said.gpus.bandwidth,
        },
        split: said.split.map(|split| split.speaks.clone()),
    });
    if let Some(split) = said.split {
        let most = Duration::from_micros(split.most_round_trip_micros);
        known.most_round_trip = known.most_round_trip.min(most);
    }
    // Who only serves is lent nothing.
    let may_host = |want: &&WantState| {
        said.role.uses() || (!want.is_split && !want.is_too_large && want.bytes() <= said.memory)
    };
    known
        .wants
        .extend(said.wants.iter().filter(may_host).map(|want| Want {
            model: want.model.clone(),
            by: machine,
            work: work(want),
            beside: want.beside_bytes,
            wish: match want.is_split {
                true => Wish::Split,
                false => Wish::Whole,
            },
            alone: !want.is_too_large,
        }));
    let is_group = |model: &str| said.groups.iter().any(|group| group.model == model);
    let alone = said.models.iter().filter(|model| {
        let runs = matches!(model.stage, Stage::Ready | Stage::Loading { .. });
        runs && !is_group(&model.name)
    });
    known.running.extend(alone.map(|model| Running {
        model: model.name.clone(),
        placement: Placement::Alone(vec![machine]),
    }));
    known.running.extend(said.groups.iter().map(|group| Running {
        model: group.model.clone(),
        placement: Placement::Split(Group {
            host: machine,
            workers: group.workers.iter().map(|worker| id(worker.node)).collect(),
            shares: Shares {
                layers: group.planned.clone(),
                head: match group.planned_head {
                    0 => Head::Host,
                    worker => Head::Worker(worker as usize),
                },
            },
        }),
    }));
    for trip in said.round_trips {
        let other = id(trip.node);
        let time = Duration::from_micros(trip.micros.into());
        let longest = known
            .round_trips
            .entry((machine.min(other), machine.max(other)))
            .or_default();
        *longest = (*longest).max(time);
    }
}

fn work(want: &WantState) -> Work {
    let layers = want.layers.min(MOST_LAYERS);
    let each = want.layer_bytes.checked_div(layers.into()).unwrap_or(0);
    Work {
        layers: vec![each; layers as usize],
        head: want.head_bytes,
        logits: want.logits_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::core::Seen;
    use crate::mesh::id::{Boot, MeshId};
    use crate::mesh::state::{Memory, NodeState};

    const GB: u64 = 1_000_000_000;

    fn node(number: u8) -> NodeId {
        iroh_base::SecretKey::from_bytes(&[number; 32]).public()
    }

    fn part() -> SplitPart {
        SplitPart {
            speaks: "3".to_owned(),
            bandwidth: 10 * GB,
            most_round_trip_micros: 80_000,
        }
    }

    /// A machine that lends so much and is so far away, in microseconds.
    fn machine(number: u8, gigabytes: u64, micros: u32) -> (Seen, RoundTrip) {
        let offered_bytes = gigabytes * GB;
        let state = NodeState {
            name: format!("machine {number}"),
            memory: Memory {
                total_bytes: offered_bytes,
                offered_bytes,
            },
            split: Some(part()),
            ..NodeState::bare(node(number), Boot(1), 1)
        };
        let trip = RoundTrip {
            node: node(number),
            micros,
        };
        (Seen { state, path: None }, trip)
    }

    /// A model of 13 GB that a machine was told to serve.
    fn big() -> WantState {
        WantState {
            model: "big".to_owned(),
            layers: 24,
            layer_bytes: 12 * GB,
            head_bytes: GB / 2,
            logits_bytes: 600_000,
            beside_bytes: GB / 2,
            is_split: false,
            is_too_large: false,
            is_adopted: false,
        }
    }

    /// What machine 1 with 8 GB does, which was told to serve a model of 13 GB in such a mesh.
    fn directive(others: Vec<(Seen, RoundTrip)>) -> Directive {
        let (nodes, round_trips) = others.into_iter().unzip();
        let view = View {
            mesh: MeshId(node(1)),
            me: node(1),
            role: Some(Role::Node),
            nodes,
            clients: Vec::new(),
        };
        let own = Offer {
            memory: Memory {
                total_bytes: 8 * GB,
                offered_bytes: 8 * GB,
            },
            split: Some(part()),
            wants: vec![big()],
            round_trips,
            ..Offer::default()
        };
        let decided = decide(&view, &own, &known(&view, &own));
        decided.into_values().next().unwrap()
    }

    #[test]
    fn what_does_not_fit_here_waits_for_others_with_the_numbers() {
        let Directive::Wait { need, have } = directive(Vec::new()) else {
            panic!("it fits nowhere");
        };
        assert_eq!((need, have), (13 * GB, 8 * GB));
    }

    #[test]
    fn it_is_served_with_who_is_near_and_not_with_who_is_far() {
        let near = machine(2, 8, 5_000);
        let wanted = Wanted {
            node: node(2),
            label: "machine 2".to_owned(),
        };
        let far = machine(3, 64, 81_000);
        // Of 24 layers of 0.52 GB, with caches, 85 % of 8 GB have room for 12 beside the output layer.
        let shares = Shares {
            layers: vec![12, 12],
            head: Head::Host,
        };
        let workers = vec![wanted];
        assert_eq!(
            directive(vec![near, far.clone()]),
            Directive::Host { workers, shares }
        );
        assert!(matches!(directive(vec![far]), Directive::Wait { .. }));
    }

    #[test]
    fn a_machine_whose_gpu_is_quick_takes_as_much_as_that_holds() {
        let (mut seen, trip) = machine(2, 11, 5_000);
        seen.state.gpus = Gpus {
            offered_bytes: 10 * GB,
            bandwidth: 900 * GB,
        };
        let Directive::Host { shares, .. } = directive(vec![(seen, trip)]) else {
            panic!("together they have room");
        };
        // 85 % of its GPU have room for 16 layers of 0.52 GB.
        assert_eq!(shares.layers, [8, 16]);
    }

    #[test]
    fn where_another_serves_it_alone_this_machine_leaves_it_to_that_one() {
        let mut other = machine(2, 64, 5_000);
        other.0.state.wants = vec![big()];
        let by = "machine 2".to_owned();
        assert_eq!(directive(vec![other]), Directive::Elsewhere { by });
    }

    #[test]
    fn what_a_machine_can_do_alone_and_what_it_need_not_do_any_more_is_told_at_once() {
        let of = |models: &[(&str, Directive)]| -> Directives {
            let models = models.iter().cloned();
            models
                .map(|(model, directive)| (model.to_owned(), directive))
                .collect()
        };
        let wait = Directive::Wait { need: 2, have: 1 };
        let mut told = of(&[("dropped", Directive::Alone), ("b", Directive::Alone)]);
        let now = of(&[("a", Directive::Alone), ("b", wait.clone()), ("c", wait)]);
        assert!(tell_at_once(&mut told, &now));
        assert_eq!(told, of(&[("a", Directive::Alone), ("b", Directive::Alone)]));
        assert!(!tell_at_once(&mut told, &now));
    }

    #[test]
    fn another_division_among_the_same_machines_is_told_at_once_and_delays_nothing() {
        let host = |number: u8, layers: &[u32]| Directive::Host {
            workers: vec![Wanted {
                node: node(number),
                label: "machine".to_owned(),
            }],
            shares: Shares {
                layers: layers.to_vec(),
                head: Head::Host,
            },
        };
        let of = |directive: Directive| Directives::from([("a".to_owned(), directive)]);
        let mut told = of(host(2, &[5, 5]));
        let divided = of(host(2, &[6, 4]));
        assert!(tell_at_once(&mut told, &divided));
        assert_eq!(told, divided);
        assert!(!tell_at_once(&mut told, &of(host(3, &[6, 4]))));
        assert_eq!(told, divided);
        let coming = settle(None, &told, of(host(3, &[6, 4])));
        let (_, due) = coming.clone().unwrap();
        let now = of(host(3, &[7, 3]));
        assert_eq!(settle(coming.clone(), &told, now.clone()), Some((now, due)));
        assert_eq!(settle(coming, &told, divided), None);
    }
}
