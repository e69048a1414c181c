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
fn a_group_is_not_taken_for_slower_because_of_what_another_might_have() {
    let mut view = mesh(&[(64, 5), (26, 1), (22, 1), (0, 1)]);
    for (a, b, way) in [(1, 3, 6), (1, 4, 0), (2, 3, 0), (2, 4, 0)] {
        set_way(&mut view, a, b, way);
    }
    view.wants = vec![want("a", 3, 0), want("new", 4, 0)];
    (view.wants[0].work, view.wants[0].beside) = (work(&[5], 4), 24 * MIB);
    (view.wants[1].work, view.wants[1].beside) = (work(&[3, 1], 0), 27 * MIB);
    // "new" has a layer on either, but both would fit on the first: where that is reckoned, "a" has no room there but for its
    // output layer.
    view.running = vec![running("a", split(3, &[1])), running("new", split(4, &[1, 2]))];
    assert_eq!(of(&view, "a"), split(3, &[1]));
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
    view.running = vec![running("a", split(1, &[2, 3])), running("new", alone(&[3]))];
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
    let before = plan(&view);
    assert_eq!(
        (&before["a"], &before["c"]),
        (&split(5, &[2]), &split(3, &[1, 5, 4]))
    );
    view.running = before
        .into_iter()
        .map(|(model, placement)| running(&model, placement))
        .collect();
    view.wants.push(want("new", 5, 0));
    (view.wants[2].work, view.wants[2].beside) = (work(&[1, 1, 5, 5, 3], 1), 13 * MIB);
    assert_eq!(of(&view, "c"), split(3, &[1, 5, 4]));
    assert!(matches!(of(&view, "new"), Placement::Split(_)));
}
