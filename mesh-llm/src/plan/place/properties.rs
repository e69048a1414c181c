//! What holds of every plan, whatever the mesh is like.

use super::demand::models;
use super::known::Known;
use super::*;
use llama_engine::rpc::plan::Head;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MOST: Duration = Duration::from_millis(20);
const LEAST: u64 = 7;

fn id() -> impl Strategy<Value = MachineId> {
    (0_u8..7).prop_map(|number| MachineId([number; 32]))
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned)
}

fn machine() -> impl Strategy<Value = Machine> {
    let split = prop::sample::select(vec![Some("1"), Some("1"), Some("1"), Some("2"), None]);
    let bandwidth = prop::sample::select(vec![0, 1, 1, 2, 5, 20]);
    let gpus = prop_oneof![
        2 => Just(Gpus::default()),
        1 => (0_u64..70, 0_u64..30).prop_map(|(bytes, rate)| Gpus { bytes, bandwidth: rate * 1000 }),
    ];
    (id(), 0_u64..70, bandwidth, gpus, split).prop_map(|(id, memory, bandwidth, gpus, split)| Machine {
        id,
        memory,
        bandwidth: bandwidth * 1000,
        gpus,
        split: split.map(str::to_owned),
    })
}

fn want() -> impl Strategy<Value = Want> {
    let work = (prop::collection::vec(1_u64..6, 0..24), 0_u64..6, 0_u64..1000);
    let wish = prop::sample::select(vec![Wish::Whole, Wish::Whole, Wish::Whole, Wish::Split]);
    let alone = prop_oneof![4 => Just(true), 1 => Just(false)];
    (name(), id(), work, 0_u64..30, wish, alone).prop_map(
        |(model, by, (layers, head, logits), beside, wish, alone)| Want {
            model,
            by,
            work: Work { layers, head, logits },
            beside,
            wish,
            alone,
        },
    )
}

fn shares() -> impl Strategy<Value = Shares> {
    let head = prop_oneof![
        3 => Just(Head::Host),
        1 => (1_usize..5).prop_map(Head::Worker),
    ];
    (prop::collection::vec(0_u32..8, 4..5), head).prop_map(|(layers, head)| Shares { layers, head })
}

/// Mostly makes the layers of a group as many as those of its model, so that the group can be.
fn fit(running: &mut Running, wants: &[Want]) {
    let Placement::Split(group) = &mut running.placement else {
        return;
    };
    let wanted = |want: &&Want| want.model == running.model && want.by == group.host;
    let Some(want) = wants.iter().find(wanted) else {
        return;
    };
    let Shares { layers, .. } = &mut group.shares;
    layers.truncate(group.workers.len() + 1);
    let mut left = want.work.layers.len() as u32;
    for layers in layers.iter_mut() {
        *layers = (*layers).min(left);
        left -= *layers;
    }
    if left < 12
        && let Some(first) = layers.first_mut()
    {
        *first += left;
    }
}

fn running() -> impl Strategy<Value = Running> {
    let ids = || prop::collection::vec(id(), 0..4);
    let placement = prop_oneof![
        ids().prop_map(Placement::Alone),
        (id(), ids(), shares()).prop_map(|(host, workers, shares)| {
            Placement::Split(Group {
                host,
                workers,
                shares,
            })
        }),
        Just(Placement::Waiting { need: 1, have: 0 }),
    ];
    (name(), placement).prop_map(|(model, placement)| Running { model, placement })
}

/// Everything that can be, and some that cannot: machines twice, unknown ones, models without layers.
fn view() -> impl Strategy<Value = View> {
    let round_trip = ((id(), id()), 0_u64..24);
    (
        prop::collection::vec(machine(), 0..14),
        prop::collection::vec(want(), 0..7),
        prop::collection::vec(running(), 0..4),
        prop::collection::vec(round_trip, 0..100),
    )
        .prop_map(|(machines, wants, mut running, round_trips)| {
            running.iter_mut().for_each(|running| fit(running, &wants));
            View {
                machines,
                wants,
                running,
                round_trips: round_trips
                    .into_iter()
                    .map(|((a, b), way)| ((a.min(b), a.max(b)), Duration::from_millis(way)))
                    .collect(),
                most_round_trip: MOST,
                beside_worker: LEAST,
            }
        })
}

/// The view of a mesh that does what `plan` says.
fn with(view: &View, plan: &BTreeMap<String, Placement>) -> View {
    let running = plan.iter().map(|(model, placement)| Running {
        model: model.clone(),
        placement: placement.clone(),
    });
    View {
        running: running.collect(),
        ..view.clone()
    }
}

fn round_trip(view: &View, a: MachineId, b: MachineId) -> Option<Duration> {
    view.round_trips.get(&(a.min(b), a.max(b))).copied()
}

/// Bytes that each machine has beside what `plan` takes of it; `None` if it takes more than there is.
fn rest(view: &View, plan: &BTreeMap<String, Placement>) -> Option<group::Left> {
    let known = Known::new(view);
    let mut left = group::everything(&known);
    for model in models(view, &known) {
        let takes = match &plan[model.name] {
            Placement::Alone(machines) => {
                let copies = machines.iter().map(|id| (*id, model.demands[id].need));
                copies.collect()
            }
            Placement::Split(group) => {
                let demand = &model.demands[&group.host];
                let takes = group::kept(&known, demand, &left, group)?.takes;
                assert!(takes.iter().map(|(_, bytes)| bytes).sum::<u64>() >= demand.need);
                takes
            }
            Placement::Waiting { .. } => Vec::new(),
        };
        for (id, bytes) in takes {
            let rest = left[&id].checked_sub(bytes)?;
            left.insert(id, rest);
        }
    }
    Some(left)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 256 } else { 512 }))]

    #[test]
    fn the_order_of_lists_means_nothing(
        (view, shuffled) in view().prop_flat_map(|view| {
            let shuffled = (
                Just(view.machines.clone()).prop_shuffle(),
                Just(view.wants.clone()).prop_shuffle(),
                Just(view.running.clone()).prop_shuffle(),
            );
            (Just(view), shuffled)
        })
    ) {
        let (machines, wants, running) = shuffled;
        let other = View { machines, wants, running, ..view.clone() };
        prop_assert_eq!(plan(&view), plan(&other));
    }

    #[test]
    fn a_plan_that_runs_is_the_plan(view in view()) {
        let first = plan(&view);
        prop_assert_eq!(plan(&with(&view, &first)), first);
    }

    #[test]
    fn a_new_want_moves_nothing_that_runs(view in view(), mut want in want()) {
        let before = plan(&view);
        let mut more = with(&view, &before);
        want.model = "new".to_owned();
        more.wants.push(want);
        let after = plan(&more);
        for (model, placement) in before {
            if !matches!(placement, Placement::Waiting { .. }) {
                prop_assert_eq!(&after[&model], &placement);
            }
        }
    }

    #[test]
    fn no_memory_is_given_twice(view in view()) {
        prop_assert!(rest(&view, &plan(&view)).is_some());
    }

    #[test]
    fn machines_of_a_group_are_near_and_understand_each_other(mut view in view()) {
        view.running.clear();
        for placement in plan(&view).values() {
            let Placement::Split(group) = placement else { continue };
            let host = group.host;
            prop_assert!(!group.workers.is_empty());
            prop_assert!(!group.workers.contains(&host));
            let distinct: BTreeSet<_> = group.workers.iter().collect();
            prop_assert_eq!(distinct.len(), group.workers.len());
            let to_host = |id| round_trip(&view, host, id).expect("it is known");
            for (index, worker) in group.workers.iter().enumerate() {
                prop_assert!(to_host(*worker) <= MOST);
                for other in &group.workers[..index] {
                    let most = to_host(*worker) + to_host(*other);
                    prop_assert!(round_trip(&view, *worker, *other).unwrap_or(most) <= MOST);
                }
                let word = |id| view.machines.iter().find(|machine| machine.id == id).map(|machine| &machine.split);
                let words = (word(host), word(*worker));
                prop_assert!(words.0.is_some());
                // Of a machine that is there twice, either word may count.
                let twice = |id| view.machines.iter().filter(|machine| machine.id == id).count() > 1;
                prop_assert!(words.0 == words.1 || twice(host) || twice(*worker));
            }
        }
    }

    #[test]
    fn what_fits_on_one_machine_is_there(mut view in view()) {
        // With one model nothing else takes memory.
        view.wants.retain(|want| want.model == "a" && want.wish == Wish::Whole);
        view.running.clear();
        let known = Known::new(&view);
        let models = models(&view, &known);
        for model in &models {
            let demands = model.demands.values();
            let fits: Vec<_> = demands.filter(|demand| demand.alone && demand.need <= known.memory(demand.by)).map(|demand| demand.by).collect();
            match &plan(&view)[model.name] {
                Placement::Alone(machines) => prop_assert_eq!(machines, &fits),
                _ => prop_assert!(fits.is_empty()),
            }
        }
    }

    #[test]
    fn what_waits_would_not_fit_if_it_were_all_there_is(view in view()) {
        let plan = plan(&view);
        let left = rest(&view, &plan).expect("it fits");
        let mut rest = view.clone();
        rest.running.clear();
        rest.machines.sort();
        rest.machines.dedup_by_key(|machine| machine.id);
        for machine in &mut rest.machines {
            machine.gpus = Known::new(&view).node(machine.id, machine.id, left[&machine.id]).gpus;
            machine.memory = left[&machine.id];
        }
        for (name, placement) in &plan {
            if matches!(placement, Placement::Waiting { .. }) {
                let only = |want: &&Want| want.model == *name;
                let wants = view.wants.iter().filter(only).cloned().collect();
                let alone = super::plan(&View { wants, ..rest.clone() });
                prop_assert_eq!(&alone[name], placement);
            }
        }
    }

    #[test]
    fn every_model_that_somebody_wants_is_in_the_plan(view in view()) {
        let there = |id| view.machines.iter().any(|machine| machine.id == id);
        let wanted = view.wants.iter().filter(|want| there(want.by)).map(|want| &want.model);
        let plan = plan(&view);
        prop_assert_eq!(wanted.collect::<BTreeSet<_>>(), plan.keys().collect::<BTreeSet<_>>());
    }

    #[test]
    fn no_number_is_too_large(
        mut view in view(),
        scale in prop::sample::select(vec![1_u64 << 40, 1 << 50, 1 << 60, u64::MAX / 59]),
        bandwidth in prop::sample::select(vec![1, u64::MAX]),
        longest in any::<bool>(),
    ) {
        for machine in &mut view.machines {
            machine.memory = machine.memory.saturating_mul(scale);
            machine.bandwidth = machine.bandwidth.min(1).saturating_mul(bandwidth);
        }
        for want in &mut view.wants {
            want.work.layers.iter_mut().for_each(|layer| *layer = layer.saturating_mul(scale));
            want.work.head = want.work.head.saturating_mul(scale);
            want.work.logits = want.work.logits.saturating_mul(scale);
            want.beside = want.beside.saturating_mul(scale);
        }
        if longest {
            view.most_round_trip = Duration::MAX;
            view.round_trips.values_mut().for_each(|way| *way = Duration::MAX);
        }
        let first = plan(&view);
        prop_assert_eq!(plan(&with(&view, &first)), first);
    }
}
