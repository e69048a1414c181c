//! The outcome depends on the set of acts, not on the order in which it came together.

use super::*;
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
    let generation = prop_oneof![4 => Just(0), 1 => 1u32..3];
    let signed = (by, any_act(), mesh, generation);
    signed.prop_map(|(by, act, mesh, generation)| SignedAct::sign(&KEYS[by], mesh, generation, act))
}

/// Acts of which the removals name some of those before them.
fn any_acts() -> impl Strategy<Value = Vec<SignedAct>> {
    let acts = prop::collection::vec((any_signed_act(), any::<u32>()), 0..24);
    acts.prop_map(|acts| {
        let mut named: Vec<SignedAct> = Vec::new();
        for (act, chosen) in acts {
            let before = named.iter().enumerate();
            let is_chosen = |place: usize| chosen & (1 << place) != 0 || chosen & (1 << 31) != 0;
            let names = before
                .filter(|(place, _)| is_chosen(*place))
                .map(|(_, act)| act.id());
            let names: Vec<_> = names.collect();
            named.push(match (act.act(), act.is_genuine(mesh())) {
                (
                    Act::Remove {
                        subject, generation, ..
                    },
                    true,
                ) => {
                    let (subject, by) = (number(*subject), number(act.by()));
                    sign_in(act.in_generation(), by, remove_but(subject, *generation, names))
                }
                _ => act,
            });
        }
        named
    })
}

fn number(node: NodeId) -> usize {
    NODES.iter().position(|it| *it == node).unwrap()
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
    fn the_set_is_what_governors_signed(acts in any_acts()) {
        let roster = with(&acts);
        let governors = governors(&acts);
        let counting = acts.iter().filter(|act| act.is_genuine(mesh()) && governors.contains(&act.by()));
        let expected: BTreeSet<_> = counting.map(SignedAct::id).collect();
        prop_assert_eq!(roster.ids().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn who_is_in_was_admitted_since_the_last_removal_and_no_token_is_used_too_often(acts in any_acts()) {
        let roster = with(&acts);
        let all = roster.missing_from(&[]);
        let verdict = roster.view().verdict();
        let those = |which: &[bool]| -> Vec<SignedAct> {
            all.iter().zip(which).filter(|(_, it)| **it).map(|(act, _)| act.clone()).collect()
        };
        let (counting, possible) = (those(&verdict.sure), those(&verdict.possible));
        let is_out = |node: NodeId, in_generation: u32| possible.iter().any(|act| matches!(
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

    #[test]
    fn an_act_counts_if_its_signer_governs_and_no_removal_that_counts_voids_it(acts in any_acts()) {
        let roster = with(&acts);
        let all = roster.missing_from(&[]);
        let verdict = roster.view().verdict();
        prop_assert!(verdict.sure.iter().zip(&verdict.possible).all(|(sure, possible)| sure <= possible));
        let governs = |act: &SignedAct, among: &[bool]| {
            let by = (act.by(), act.in_generation());
            by == (mesh().founder(), 0) || all.iter().zip(among).any(|(other, counts)| {
                let admission = other.admission().filter(|it| *counts && it.role.governs());
                admission.is_some_and(|it| (it.subject, it.generation) == by)
            })
        };
        let is_void = |act: &SignedAct, among: &[bool]| all.iter().zip(among).any(|(other, counts)| {
            *counts && other != act && matches!(
                other.act(),
                Act::Remove { subject, generation, stand, .. }
                    if *subject == act.by() && *generation >= act.in_generation() && !stand.contains(&act.id())
            )
        });
        let founder = mesh().founder();
        let (sure, possible) = (&verdict.sure, &verdict.possible);
        for (place, act) in all.iter().enumerate() {
            // Of removals of the founder there is a rule of its own, and its acts of the first generation fall to nothing
            // else. What it signs in a later one counts by somebody's admission, and can be disputed with that.
            if matches!(act.act(), Act::Remove { subject, .. } if *subject == founder) {
                prop_assert_eq!(sure[place], possible[place], "{:?}", act);
                continue;
            }
            if (act.by(), act.in_generation()) == (founder, 0) {
                prop_assert_eq!(sure[place], possible[place], "{:?}", act);
            }
            prop_assert_eq!(sure[place], governs(act, sure) && !is_void(act, possible), "{:?}", act);
            prop_assert_eq!(possible[place], governs(act, possible) && !is_void(act, sure), "{:?}", act);
        }
    }
}
