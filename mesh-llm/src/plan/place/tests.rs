//! Each rule of the plan, by example.

mod stays;

use super::*;
use llama_engine::rpc::plan::Head;

const MIB: u64 = 1 << 20;

fn id(number: u8) -> MachineId {
    MachineId([number; 32])
}

/// Machines with so many MiB of memory and a bandwidth of so many GiB a second, named 1, 2, …; all a millisecond apart.
fn mesh(machines: &[(u64, u64)]) -> View {
    let ids = 1..=machines.len() as u8;
    let machine = |(number, (memory, bandwidth)): (u8, &(u64, u64))| Machine {
        id: id(number),
        memory: memory * MIB,
        bandwidth: bandwidth << 30,
        gpus: Gpus::default(),
        split: Some("1".to_owned()),
    };
    let pairs = ids.clone().flat_map(|a| (1..a).map(move |b| (id(b), id(a))));
    View {
        machines: ids.clone().zip(machines).map(machine).collect(),
        round_trips: pairs.map(|pair| (pair, Duration::from_millis(1))).collect(),
        most_round_trip: Duration::from_millis(20),
        ..View::default()
    }
}

/// A machine wants a model of ten layers of so many MiB each, with nothing beside.
fn want(model: &str, by: u8, layer: u64) -> Want {
    Want {
        model: model.to_owned(),
        by: id(by),
        work: Work {
            layers: vec![layer * MIB; 10],
            head: 0,
            logits: 0,
        },
        beside: 0,
        wish: Wish::Whole,
        alone: true,
    }
}

fn alone(machines: &[u8]) -> Placement {
    Placement::Alone(machines.iter().copied().map(id).collect())
}

/// A group, however it divides its layers.
fn split(host: u8, workers: &[u8]) -> Placement {
    divided(host, workers, &[])
}

/// A group with so many layers of each machine, the host first, which has the output layer.
fn divided(host: u8, workers: &[u8], layers: &[u32]) -> Placement {
    Placement::Split(Group {
        host: id(host),
        workers: workers.iter().copied().map(id).collect(),
        shares: Shares {
            layers: layers.to_vec(),
            head: Head::Host,
        },
    })
}

fn running(model: &str, placement: Placement) -> Running {
    let model = model.to_owned();
    Running { model, placement }
}

/// The plan's word on one model, but for how a group divides its layers.
fn of(view: &View, model: &str) -> Placement {
    whole(plan(view)[model].clone())
}

fn whole(placement: Placement) -> Placement {
    match placement {
        Placement::Split(group) => Placement::Split(Group {
            shares: Shares {
                layers: Vec::new(),
                head: Head::Host,
            },
            ..group
        }),
        other => other,
    }
}

/// A mesh that does what it planned.
fn run(view: &mut View) {
    let plan = plan(view);
    view.running = plan
        .into_iter()
        .map(|(model, placement)| running(&model, placement))
        .collect();
}

fn set_way(view: &mut View, a: u8, b: u8, milliseconds: u64) {
    view.round_trips
        .insert((id(a), id(b)), Duration::from_millis(milliseconds));
}

#[test]
fn a_machine_is_shown_as_short_as_a_node() {
    assert_eq!(format!("{:?}", id(171)), "ababababab");
}

#[test]
fn every_machine_that_wants_a_model_and_has_room_serves_a_copy() {
    let mut view = mesh(&[(100, 50), (99, 50), (200, 50)]);
    view.wants = vec![want("a", 1, 10), want("a", 2, 10), want("a", 3, 10)];
    assert_eq!(of(&view, "a"), alone(&[1, 3]));
}

#[test]
fn caches_and_buffers_need_room_too() {
    let mut view = mesh(&[(100, 50)]);
    view.wants = vec![want("a", 1, 10)];
    view.wants[0].beside = 1;
    let (need, have) = (100 * MIB + 1, 100 * MIB);
    assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
}

#[test]
fn in_a_group_caches_take_room_wherever_layers_are() {
    let mut view = mesh(&[(60, 50), (60, 50)]);
    view.wants = vec![want("a", 1, 10)];
    view.wants[0].beside = 20 * MIB;
    assert_eq!(of(&view, "a"), split(1, &[2]));
    // Five layers of 12 MiB fit each; of 12.1 MiB only four.
    view.wants[0].beside = 21 * MIB;
    let (need, have) = (121 * MIB, 120 * MIB);
    assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
}

#[test]
fn layers_are_whole_so_a_model_may_wait_with_room_enough() {
    let mut view = mesh(&[(55, 50), (55, 50)]);
    view.wants = vec![want("a", 1, 11)];
    let all = 110 * MIB;
    assert_eq!(of(&view, "a"), split(1, &[2]));
    view.machines[0].memory -= 1;
    view.machines[1].memory += 1;
    assert_eq!(of(&view, "a"), Placement::Waiting { need: all, have: all });
}

#[test]
fn a_model_that_fits_nowhere_is_split_over_the_quickest_machines() {
    let mut view = mesh(&[(60, 50), (100, 20), (100, 80), (100, 40)]);
    view.wants = vec![want("a", 1, 10)];
    assert_eq!(of(&view, "a"), split(1, &[3]));
}

#[test]
fn a_worker_takes_room_for_its_process_beside_the_layers() {
    let mut view = mesh(&[(60, 50), (60, 50)]);
    view.wants = vec![want("a", 1, 10)];
    view.beside_worker = 20 * MIB;
    assert_eq!(of(&view, "a"), split(1, &[2]));
    view.beside_worker += 1;
    // There are 40 MiB less a byte for layers on one of them.
    let (need, have) = (100 * MIB, 100 * MIB - 1);
    assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
    // What runs takes the room as well.
    view.beside_worker = 20 * MIB;
    run(&mut view);
    view.wants.push(want("b", 2, 1));
    let (need, have) = (10 * MIB, 0);
    assert_eq!(of(&view, "b"), Placement::Waiting { need, have });
}

#[test]
fn the_host_is_the_machine_with_which_a_token_is_quickest() {
    let mut view = mesh(&[(30, 50), (30, 50), (100, 50)]);
    view.wants = vec![want("a", 1, 10), want("a", 2, 10)];
    // Both are as quick: neither's memory nor way differs, so the smaller id counts.
    assert_eq!(of(&view, "a"), split(1, &[3]));
    view.machines[1].memory += 1;
    assert_eq!(of(&view, "a"), split(2, &[3]));
    set_way(&mut view, 2, 3, 10);
    assert_eq!(of(&view, "a"), split(1, &[3]));
}

#[test]
fn only_machines_that_understand_each_other_form_a_group() {
    let mut view = mesh(&[(60, 50), (60, 50)]);
    view.wants = vec![want("a", 1, 10)];
    for (ours, theirs) in [
        (Some("1"), Some("2")),
        (None, Some("1")),
        (Some("1"), None),
        (None, None),
    ] {
        view.machines[0].split = ours.map(str::to_owned);
        view.machines[1].split = theirs.map(str::to_owned);
        let (need, have) = (100 * MIB, 60 * MIB);
        assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
    }
}

#[test]
fn a_far_machine_is_in_no_group_nor_is_one_whose_way_is_unknown() {
    let mut view = mesh(&[(60, 50), (60, 50)]);
    view.wants = vec![want("a", 1, 10)];
    set_way(&mut view, 1, 2, 21);
    assert!(matches!(of(&view, "a"), Placement::Waiting { .. }));
    view.round_trips.clear();
    assert!(matches!(of(&view, "a"), Placement::Waiting { .. }));
    set_way(&mut view, 1, 2, 20);
    assert_eq!(of(&view, "a"), split(1, &[2]));
}

#[test]
fn workers_are_near_each_other_or_their_ways_to_the_host_are_short() {
    let mut view = mesh(&[(40, 50), (40, 50), (40, 50)]);
    view.wants = vec![want("a", 1, 10)];
    assert_eq!(of(&view, "a"), split(1, &[2, 3]));
    set_way(&mut view, 2, 3, 21);
    assert!(matches!(of(&view, "a"), Placement::Waiting { .. }));
    view.round_trips.remove(&(id(2), id(3)));
    assert_eq!(of(&view, "a"), split(1, &[2, 3]));
    set_way(&mut view, 1, 3, 20);
    assert!(matches!(of(&view, "a"), Placement::Waiting { .. }));
}

#[test]
fn of_two_sites_the_one_that_has_the_room_works() {
    let mut view = mesh(&[(40, 50), (30, 90), (29, 50), (40, 50), (30, 50)]);
    view.wants = vec![want("a", 1, 10)];
    for (a, b) in [(2, 4), (2, 5), (3, 4), (3, 5)] {
        set_way(&mut view, a, b, 30);
    }
    assert_eq!(of(&view, "a"), split(1, &[4, 5]));
}

#[test]
fn what_is_to_be_split_is_split_even_if_it_fits() {
    let mut view = mesh(&[(1000, 50), (50, 50)]);
    view.wants = vec![want("a", 1, 10)];
    view.wants[0].wish = Wish::Split;
    assert_eq!(of(&view, "a"), split(1, &[2]));
    // Half of the layers at most stay with the host.
    view.machines[1].memory -= 1;
    let (need, have) = (100 * MIB, 1050 * MIB - 1);
    assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
}

#[test]
fn if_one_machine_wants_a_model_split_all_do() {
    let mut view = mesh(&[(1000, 50), (1000, 50)]);
    view.wants = vec![want("a", 1, 10), want("a", 2, 10)];
    view.wants[1].wish = Wish::Split;
    view.running = vec![running("a", alone(&[1, 2]))];
    assert_eq!(of(&view, "a"), split(1, &[2]));
}

#[test]
fn small_models_come_first_and_each_once_before_any_twice() {
    let mut view = mesh(&[(100, 50), (100, 50)]);
    view.wants = vec![want("large", 1, 10), want("small", 1, 9), want("small", 2, 9)];
    // The first machine serves the small one, and nothing is left for the large one.
    assert_eq!(of(&view, "small"), alone(&[1, 2]));
    assert!(matches!(of(&view, "large"), Placement::Waiting { .. }));
    // On the second machine it is quicker, and the first has room for the large one.
    view.machines[1].bandwidth *= 2;
    assert_eq!(
        (of(&view, "small"), of(&view, "large")),
        (alone(&[2]), alone(&[1]))
    );
}

#[test]
fn groups_share_what_single_machines_leave() {
    let mut view = mesh(&[(100, 50), (100, 50)]);
    view.wants = vec![want("a", 1, 4), want("b", 2, 12)];
    assert_eq!((of(&view, "a"), of(&view, "b")), (alone(&[1]), split(2, &[1])));
    view.wants[0] = want("a", 1, 9);
    let (need, have) = (120 * MIB, 110 * MIB);
    assert_eq!(
        (of(&view, "a"), of(&view, "b")),
        (alone(&[1]), Placement::Waiting { need, have })
    );
}

#[test]
fn what_runs_comes_before_what_is_smaller() {
    let mut view = mesh(&[(100, 50)]);
    view.wants = vec![want("small", 1, 5), want("large", 1, 10)];
    view.running = vec![running("large", alone(&[1]))];
    assert_eq!(of(&view, "large"), alone(&[1]));
    assert!(matches!(of(&view, "small"), Placement::Waiting { .. }));
}

#[test]
fn a_group_that_runs_gives_way_only_to_one_that_is_a_fifth_quicker() {
    let mut view = mesh(&[(60, 50), (60, 50), (60, 50)]);
    view.wants = vec![want("a", 1, 10)];
    view.running = vec![running("a", divided(1, &[2], &[5, 5]))];
    view.machines[2].bandwidth = 60 << 30;
    assert_eq!(of(&view, "a"), split(1, &[2]));
    view.machines[2].bandwidth = 500 << 30;
    assert_eq!(of(&view, "a"), split(1, &[3]));
}

#[test]
fn a_model_that_comes_to_fit_on_one_machine_stays_split_unless_it_gains_a_fifth() {
    let mut view = mesh(&[(50, 50), (50, 50), (1000, 50)]);
    view.wants = vec![want("a", 1, 100)];
    view.machines[0].memory = 1000 * MIB;
    view.machines[1].memory = 1000 * MIB;
    view.running = vec![running("a", divided(1, &[2], &[5, 5]))];
    // Twenty milliseconds to compute, and two more on the way.
    assert_eq!(of(&view, "a"), split(1, &[2]));
    set_way(&mut view, 1, 2, 10);
    assert_eq!(of(&view, "a"), alone(&[1]));
}

#[test]
fn a_group_outlives_ways_that_waver_and_are_not_known_for_a_while() {
    let mut view = mesh(&[(50, 50), (50, 50)]);
    view.wants = vec![want("a", 1, 10)];
    view.running = vec![running("a", divided(1, &[2], &[5, 5]))];
    set_way(&mut view, 1, 2, 25);
    assert_eq!(of(&view, "a"), split(1, &[2]));
    view.round_trips.clear();
    assert_eq!(of(&view, "a"), split(1, &[2]));
    set_way(&mut view, 1, 2, 26);
    assert!(matches!(of(&view, "a"), Placement::Waiting { .. }));
}

#[test]
fn a_group_ends_with_a_machine_with_its_memory_and_with_the_want() {
    let mut view = mesh(&[(60, 50), (60, 50), (60, 45)]);
    view.wants = vec![want("a", 1, 10)];
    view.running = vec![running("a", divided(1, &[3], &[6, 4]))];
    let without = View {
        machines: view.machines[..2].to_vec(),
        ..view.clone()
    };
    assert_eq!(of(&without, "a"), split(1, &[2]));
    let mut smaller = view.clone();
    smaller.machines[2].memory = 39 * MIB;
    assert_eq!(of(&smaller, "a"), split(1, &[2]));
    view.wants[0].by = id(2);
    assert_eq!(of(&view, "a"), split(2, &[1]));
    view.wants.clear();
    assert!(plan(&view).is_empty());
}

#[test]
fn of_a_group_and_a_copy_that_both_run_the_quicker_stays() {
    let mut view = mesh(&[(500, 50), (500, 50), (1000, 50)]);
    view.wants = vec![want("a", 1, 100), want("a", 3, 100)];
    view.running = vec![running("a", divided(1, &[2], &[5, 5])), running("a", alone(&[3]))];
    assert_eq!(of(&view, "a"), alone(&[3]));
    view.machines[2].bandwidth = 45 << 30;
    assert_eq!(of(&view, "a"), split(1, &[2]));
}

#[test]
fn of_two_groups_that_run_one_model_the_quicker_stays() {
    let mut view = mesh(&[(50, 50), (50, 50), (50, 40), (50, 40)]);
    view.wants = vec![want("a", 1, 10), want("a", 3, 10)];
    view.running = vec![
        running("a", divided(3, &[4], &[5, 5])),
        running("a", divided(1, &[2], &[5, 5])),
    ];
    assert_eq!(of(&view, "a"), split(1, &[2]));
}

#[test]
fn groups_that_run_keep_what_they_have() {
    // By itself, "a" would take all of the quick machine, which "b" cannot do without.
    let mut view = mesh(&[(90, 10), (40, 10), (100, 50)]);
    view.wants = vec![want("a", 1, 10), want("b", 2, 11)];
    let (a, b) = (divided(1, &[3], &[8, 2]), divided(2, &[3], &[3, 7]));
    view.running = vec![running("a", a.clone()), running("b", b.clone())];
    let after = plan(&view);
    assert_eq!((&after["a"], &after["b"]), (&a, &b));
}

#[test]
fn of_groups_that_were_promised_the_same_memory_the_smaller_stays() {
    // They could not hear of each other.
    let mut view = mesh(&[(60, 10), (40, 10), (100, 50)]);
    set_way(&mut view, 1, 2, 100);
    view.wants = vec![want("a", 1, 10), want("b", 2, 11)];
    let (a, b) = (divided(1, &[3], &[6, 4]), divided(2, &[3], &[3, 7]));
    view.running = vec![running("b", b), running("a", a.clone())];
    let after = plan(&view);
    assert_eq!(after["a"], a);
    assert!(matches!(after["b"], Placement::Waiting { .. }));
}

#[test]
fn a_group_whose_layers_are_not_those_of_the_model_is_planned_anew() {
    let mut view = mesh(&[(60, 50), (60, 50)]);
    view.wants = vec![want("a", 1, 10)];
    let first = plan(&view);
    for layers in [&[5, 4][..], &[10], &[], &[5, 5, 0], &[u32::MAX, u32::MAX]] {
        view.running = vec![running("a", divided(1, &[2], layers))];
        assert_eq!(plan(&view), first);
    }
}

#[test]
fn large_meshes_are_planned_for_with_all_that_it_takes() {
    let mut view = mesh(&[(10, 50); 30]);
    view.wants = vec![want("a", 7, 10)];
    assert!(matches!(of(&view, "a"), Placement::Split(group) if group.workers.len() == 9));
    // As many as llama.cpp takes devices.
    view.wants[0].work.layers = vec![10 * MIB; 14];
    let before = plan(&view);
    assert!(matches!(&before["a"], Placement::Split(group) if group.workers.len() == 13));
    run(&mut view);
    assert_eq!(plan(&view), before);
    view.wants[0].work.layers = vec![10 * MIB; 15];
    let (need, have) = (150 * MIB, 140 * MIB);
    assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
}

#[test]
fn of_two_wants_of_one_machine_the_greater_counts() {
    let mut view = mesh(&[(100, 50)]);
    view.wants = vec![want("a", 1, 11), want("a", 1, 10), want("a", 9, 1)];
    let (need, have) = (110 * MIB, 100 * MIB);
    assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
}

#[test]
fn a_model_without_layers_is_served_by_one_machine_or_none() {
    let mut view = mesh(&[(100, 50), (100, 50)]);
    view.wants = vec![want("a", 1, 0)];
    view.wants[0].work.layers.clear();
    assert_eq!(of(&view, "a"), alone(&[1]));
    view.wants[0].wish = Wish::Split;
    let (need, have) = (0, 200 * MIB);
    assert_eq!(of(&view, "a"), Placement::Waiting { need, have });
}

/// Of a machine's memory, so many MiB are on GPUs, which read so many GiB a second.
fn give_gpu(view: &mut View, machine: u8, memory: u64, bandwidth: u64) {
    view.machines[usize::from(machine) - 1].gpus = Gpus {
        bytes: memory * MIB,
        bandwidth: bandwidth << 30,
    };
}

#[test]
fn a_model_that_fits_on_one_machine_with_its_gpu_and_its_memory_runs_there() {
    let mut view = mesh(&[(150, 50), (150, 50)]);
    give_gpu(&mut view, 1, 50, 1000);
    give_gpu(&mut view, 2, 50, 1000);
    view.wants = vec![want("a", 1, 14)];
    assert_eq!(of(&view, "a"), alone(&[1]));
}

#[test]
fn a_copy_is_where_a_gpu_holds_most_of_it() {
    let mut view = mesh(&[(200, 50), (200, 60), (200, 50)]);
    give_gpu(&mut view, 1, 40, 1000);
    give_gpu(&mut view, 3, 80, 1000);
    // Machine 1 makes room for another one only if that is placed there first.
    view.wants = vec![want("a", 1, 10), want("a", 2, 10), want("a", 3, 10)];
    let known = Known::new(&view);
    let models = demand::models(&view, &known);
    let times = models[0].demands.values().map(|demand| demand.time_alone(&known));
    let times: Vec<Duration> = times.collect();
    assert!(times[2] < times[0] && times[0] < times[1], "{times:?}");
}

#[test]
fn layers_go_to_the_gpus_of_all_machines_first() {
    let mut view = mesh(&[(60, 50), (60, 50), (100, 100)]);
    give_gpu(&mut view, 1, 30, 1000);
    give_gpu(&mut view, 2, 60, 1000);
    view.wants = vec![want("a", 1, 8)];
    let Placement::Split(group) = plan(&view)["a"].clone() else {
        panic!("it does not fit on one");
    };
    assert_eq!((group.host, group.workers), (id(1), vec![id(2)]));
    assert_eq!(group.shares.layers, [4, 6]);
}

#[test]
fn what_runs_has_taken_the_gpu_first() {
    let mut view = mesh(&[(80, 50), (200, 50)]);
    give_gpu(&mut view, 2, 100, 1000);
    view.wants = vec![want("own", 2, 9), want("a", 1, 10)];
    view.running = vec![running("own", alone(&[2]))];
    let known = Known::new(&view);
    assert_eq!(known.node(id(1), id(2), 200 * MIB).gpus.bytes, 100 * MIB);
    assert_eq!(known.node(id(1), id(2), 110 * MIB).gpus.bytes, 10 * MIB);
    assert_eq!(known.node(id(1), id(2), 90 * MIB).gpus.bytes, 0);
    let Placement::Split(group) = plan(&view)["a"].clone() else {
        panic!("it does not fit on one");
    };
    // As if the other one had no GPU: as much as possible stays with the host.
    assert_eq!(group.shares.layers, [6, 4]);
}
