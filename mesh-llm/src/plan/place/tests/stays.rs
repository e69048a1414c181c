//! What runs is not moved because of what comes to run beside it. Each of these meshes was found by a property test.

use super::*;

/// The work of a model with layers and an output layer of so many MiB.
fn work(layers: &[u64], head: u64) -> Work {
    Work {
        layers: layers.iter().map(|layer| layer * MIB).collect(),
        head: head * MIB,
        logits: 0,
    }
}

#[test]
fn a_group_is_not_moved_to_what_was_passed_over_when_it_began() {
    let mut view = mesh(&[(48, 1), (28, 1), (17, 1)]);
    for (a, b, way) in [(1, 2, 0), (1, 3, 13), (2, 3, 0)] {
        set_way(&mut view, a, b, way);
    }
    view.wants = vec![want("a", 1, 0)];
    (view.wants[0].work, view.wants[0].beside) = (work(&[4, 3, 3], 2), 13 * MIB);
    view.wants[0].wish = Wish::Split;
    // With the third machine there is room to spare on all.
    assert_eq!(of(&view, "a"), split(1, &[2, 3]));
    run(&mut view);
    view.running.push(running("new", alone(&[3])));
    view.wants.push(want("new", 3, 0));
    view.wants[1].work = work(&[8], 0);
    assert_eq!(of(&view, "new"), alone(&[3]));
    assert_eq!(of(&view, "a"), split(1, &[2, 3]));
}

#[test]
fn of_three_groups_that_run_none_is_lost_for_what_others_might_have() {
    let mut view = mesh(&[(18, 2), (58, 1), (45, 1), (25, 1), (28, 2)]);
    view.round_trips.clear();
    for (a, b, way) in [(1, 3, 0), (2, 5, 0), (3, 5, 1), (3, 4, 0)] {
        set_way(&mut view, a, b, way);
    }
    view.wants = vec![want("a", 5, 0), want("c", 3, 0)];
    (view.wants[0].work, view.wants[0].beside) = (work(&[1], 1), 13 * MIB);
    view.wants[0].alone = false;
    (view.wants[1].work, view.wants[1].beside) = (work(&[4, 2, 2, 3, 3, 5, 2, 2, 2], 4), 22 * MIB);
    assert_eq!(of(&view, "a"), split(5, &[2]));
    assert_eq!(of(&view, "c"), split(3, &[1, 5, 4]));
    run(&mut view);
    view.wants.push(want("new", 5, 0));
    (view.wants[2].work, view.wants[2].beside) = (work(&[1, 1, 5, 5, 3], 1), 13 * MIB);
    assert_eq!(of(&view, "c"), split(3, &[1, 5, 4]));
    assert!(matches!(of(&view, "new"), Placement::Split(_)));
}

#[test]
fn a_group_is_not_moved_to_a_way_that_only_less_room_makes_the_best() {
    let mut view = mesh(&[(1, 1), (1, 1), (19, 1), (26, 1), (39, 1), (53, 1)]);
    view.round_trips.clear();
    for (a, b, way) in [(3, 5, 0), (4, 5, 7), (5, 6, 0)] {
        set_way(&mut view, a, b, way);
    }
    view.wants = vec![want("b", 6, 0), want("a", 5, 0)];
    (view.wants[0].work, view.wants[0].beside) = (work(&[5, 2, 2, 4, 2, 5, 5], 4), 6 * MIB);
    (view.wants[1].work, view.wants[1].beside) = (work(&[3, 5, 2], 1), 23 * MIB);
    view.wants[1].alone = false;
    let before = of(&view, "a");
    run(&mut view);
    view.wants.push(want("new", 4, 0));
    (view.wants[2].work, view.wants[2].beside) = (work(&[3], 3), 9 * MIB);
    assert_eq!(of(&view, "a"), before);
    assert!(matches!(of(&view, "new"), Placement::Split(_)));
}

#[test]
fn a_quick_group_without_room_to_spare_hides_no_better_one() {
    let mut view = mesh(&[(50, 50), (60, 5), (50, 500), (100, 100)]);
    for (a, b) in [(2, 3), (2, 4), (3, 4)] {
        set_way(&mut view, a, b, 100);
    }
    view.wants = vec![want("a", 1, 10)];
    view.running = vec![running("a", divided(1, &[2], &[5, 5]))];
    // The third machine just holds its half, the fourth is quicker than the second, too, and has room to spare.
    assert_eq!(of(&view, "a"), split(1, &[4]));
    run(&mut view);
    view.wants.push(want("new", 3, 1));
    assert_eq!(of(&view, "new"), alone(&[3]));
    assert_eq!(of(&view, "a"), split(1, &[4]));
}

#[test]
fn another_division_among_the_same_machines_hides_no_better_one() {
    let mut view = mesh(&[(100, 50), (100, 400), (100, 100)]);
    set_way(&mut view, 2, 3, 100);
    view.wants = vec![want("a", 1, 10), want("new", 2, 9)];
    view.wants[0].alone = false;
    // Now that the second machine has room it could have all but one layer; the third is quicker than what it has.
    view.running = vec![running("a", divided(1, &[2], &[9, 1]))];
    let before = {
        view.wants.truncate(1);
        of(&view, "a")
    };
    run(&mut view);
    view.wants.push(want("new", 2, 9));
    assert_eq!(of(&view, "a"), before);
}

#[test]
fn a_group_that_could_divide_its_layers_better_is_not_moved_for_want_of_that() {
    let mut view = mesh(&[(100, 40), (200, 400), (100, 60)]);
    view.wants = vec![want("a", 1, 10)];
    view.wants[0].alone = false;
    // The second machine had no more room when this was planned.
    view.running = vec![running("a", divided(1, &[2], &[9, 1]))];
    assert_eq!(of(&view, "a"), split(1, &[2]));
    run(&mut view);
    view.wants.push(want("new", 2, 12));
    assert_eq!(of(&view, "new"), alone(&[2]));
    assert_eq!(of(&view, "a"), split(1, &[2]));
}

#[test]
fn the_order_of_workers_makes_no_other_group() {
    let mut view = mesh(&[(40, 50), (40, 50), (40, 50)]);
    view.wants = vec![want("a", 1, 10)];
    for workers in [[2, 3], [3, 2]] {
        view.running = vec![running("a", divided(1, &workers, &[3, 3, 4]))];
        assert_eq!(of(&view, "a"), split(1, &workers));
    }
}

#[test]
fn a_division_that_no_plan_makes_is_not_kept() {
    let mut view = mesh(&[(100, 50), (100, 50), (100, 50)]);
    view.wants = vec![want("a", 1, 10)];
    view.wants[0].alone = false;
    let planned = of(&view, "a");
    for layers in [&[10, 0][..], &[5, 5, 0], &[5, 4], &[5, 5, 0, 0]] {
        view.running = vec![running(
            "a",
            divided(1, &[2, 3][..layers.len().min(3) - 1], layers),
        )];
        assert_eq!(of(&view, "a"), planned, "{layers:?}");
    }
}
