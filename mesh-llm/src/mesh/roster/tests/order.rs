//! The outcome depends on the set of acts, not on the order in which it came together.

use super::*;
use crate::mesh::roster::ActId;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Few players, tokens, times and generations, so that acts meet.
fn any_act() -> impl Strategy<Value = Act> {
    let role = prop_oneof![3 => Just(Role::Node), 1 => Just(Role::Worker), 1 => Just(Role::Client)];
    let uses = (0u8..3, prop::option::of(1u32..3));
    let token_use = uses.prop_map(|(number, uses)| TokenUse {
        token: token(number),
        uses: uses.and_then(NonZeroU32::new),
    });
    let tokens = prop::collection::vec(token_use, 0..3);
    let admission = (0usize..6, role, tokens, 0u64..4, 0u32..3)
        .prop_map(|(subject, role, tokens, at, generation)| admit_by(tokens, subject, role, at, generation));
    prop_oneof![
        6 => admission,
        2 => (0usize..6, 0u32..2).prop_map(|(subject, generation)| remove(subject, generation)),
        1 => (0u8..3).prop_map(|number| Act::Revoke { token: token(number), at: at(1) }),
    ]
}

/// By members and strangers alike; some with a wrong signature.
fn any_signed_act() -> impl Strategy<Value = SignedAct> {
    let mesh = prop_oneof![9 => Just(mesh()), 1 => Just(MeshId(NODES[7]))];
    let by = prop_oneof![2 => Just(FOUNDER), 3 => 0usize..6];
    (by, any_act(), mesh).prop_map(|(by, act, mesh)| SignedAct::sign(&KEYS[by], mesh, act))
}

fn any_acts() -> impl Strategy<Value = Vec<SignedAct>> {
    prop::collection::vec(any_signed_act(), 0..24)
}

/// All that can be asked of a roster.
#[derive(Debug, PartialEq)]
struct Outcome {
    members: Vec<(NodeId, Standing)>,
    uses: Vec<(u32, bool)>,
    names: BTreeSet<ActId>,
    digest: super::super::Digest,
}

fn outcome(roster: &Roster) -> Outcome {
    let of_token = |number| (roster.uses(token(number)), roster.is_revoked(token(number)));
    Outcome {
        members: roster.listed(),
        uses: (0..3).map(of_token).collect(),
        names: roster.ids().collect(),
        digest: roster.digest(),
    }
}

fn with(acts: &[SignedAct]) -> Roster {
    let mut roster = Roster::new(mesh());
    for act in acts {
        // The forged ones are rejected.
        let _ = roster.add(act.clone());
    }
    roster
}

/// Everyone who ever governed, looked for as the definition says it.
fn governors(acts: &[SignedAct]) -> BTreeSet<NodeId> {
    let mut governors = BTreeSet::from([mesh().founder()]);
    loop {
        let admitted = acts
            .iter()
            .filter(|act| act.is_genuine(mesh()) && governors.contains(&act.by()));
        let nodes = admitted
            .filter_map(SignedAct::admission)
            .filter(|it| it.role.governs());
        let found: BTreeSet<_> = nodes.map(|it| it.subject).collect();
        let before = governors.len();
        governors.extend(found);
        if governors.len() == before {
            return governors;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_order_has_the_same_outcome(
        (acts, shuffled) in any_acts().prop_flat_map(|acts| (Just(acts.clone()), Just(acts).prop_shuffle()))
    ) {
        let once = with(&acts);
        prop_assert_eq!(outcome(&once), outcome(&with(&shuffled)));
        let twice = with(&[acts, shuffled].concat());
        prop_assert_eq!(outcome(&once), outcome(&twice));
    }

    #[test]
    fn what_counts_is_what_governors_signed(acts in any_acts()) {
        let roster = with(&acts);
        let governors = governors(&acts);
        let counting = acts.iter().filter(|act| act.is_genuine(mesh()) && governors.contains(&act.by()));
        let expected: BTreeSet<_> = counting.map(SignedAct::id).collect();
        prop_assert_eq!(roster.ids().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn who_is_in_was_admitted_since_the_last_removal_and_no_token_is_used_too_often(acts in any_acts()) {
        let roster = with(&acts);
        let counting = roster.missing_from(&[]);
        let is_out = |node: NodeId, in_generation: u32| counting.iter().any(|act| matches!(
            act.act(), Act::Remove { subject, generation, .. } if *subject == node && *generation >= in_generation
        ));
        for (node, standing) in roster.members() {
            prop_assert!(!is_out(node, standing.generation));
            let admits = |act: &SignedAct| act.admission().is_some_and(|it| {
                it.subject == node && Standing::by(it) == standing
            });
            prop_assert!(node == mesh().founder() || counting.iter().any(admits));
        }
        for admission in counting.iter().filter_map(SignedAct::admission) {
            let unlimited = admission.tokens.iter().all(|it| it.uses.is_none());
            if unlimited && !is_out(admission.subject, admission.generation) {
                prop_assert!(roster.standing(admission.subject).is_some());
            }
        }
    }

    #[test]
    fn two_halves_are_united_by_what_each_lacks(acts in any_acts(), cut in any::<prop::sample::Index>()) {
        let (one, other) = acts.split_at(cut.index(acts.len() + 1));
        let (mut one, mut other) = (with(one), with(other));
        let mut rounds = 0;
        while one.digest() != other.digest() {
            rounds += 1;
            prop_assert!(rounds <= 12, "they never agree");
            let to_one = other.missing_from(&one.ids().collect::<Vec<_>>());
            let to_other = one.missing_from(&other.ids().collect::<Vec<_>>());
            for act in to_one {
                prop_assert_ne!(one.add(act), Ok(Added::Waiting), "its signer's admission came before it");
            }
            for act in to_other {
                prop_assert_ne!(other.add(act), Ok(Added::Waiting));
            }
        }
        prop_assert_eq!(outcome(&one), outcome(&other));
        // Acts that waited on one side for what only the other had count, too.
        prop_assert_eq!(outcome(&one).names, outcome(&with(&acts)).names);
    }
}
