//! Which acts count, now that some of their signers were removed.
//!
//! A removal *voids* the acts by whom it removes that it does not name. Removals are acts themselves, so that what
//! voids may be void; and an act needs a signer whom an act that counts admitted. What follows from that is looked for
//! from both sides: from too few acts that void follow too many that count, from these too many that void, and so on,
//! until both sides stay as they are (the well-founded semantics of logic programs). No act's place in the set plays
//! a part in it. What lies between the two sides is *disputed*: it counts if and only if it does not.
//!
//! The founder comes first: a removal of it has to be sure while all whom the founder removed are out, or it does not
//! count. Otherwise whoever the founder removes could, by acts signed afterwards, void those by which all others are in.

use super::Filed;
use super::act::{Act, ActId, SignedAct};
use crate::mesh::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// What decides: a node in one generation of its admissions.
pub(super) type Governor = (NodeId, u32);

/// What is thought of a set of acts; lists are by place.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    /// Those that count whatever comes of disputes.
    pub(super) sure: Vec<bool>,
    /// Those, and the disputed ones.
    pub(super) possible: Vec<bool>,
    /// Whom the first made governors.
    governors: BTreeSet<Governor>,
    /// Removals that are not void, by whom they remove.
    removals: BTreeMap<NodeId, Vec<Removal>>,
}

impl Verdict {
    pub(super) fn of(founder: NodeId, acts: &[Filed]) -> Self {
        let matter = Matter::new(founder, acts);
        let first = matter.judge(None);
        let Some(removals) = matter.removals.get(&founder) else {
            return first;
        };
        let places = removals.iter().map(|removal| removal.place);
        matter.judge(Some(&places.filter(|place| first.sure[*place]).collect()))
    }

    /// Whether an act that is not in the set would count for sure if it were.
    pub(super) fn would_count(&self, act: &SignedAct) -> bool {
        let by = (act.by(), act.in_generation());
        let mut removals = self.removals.get(&act.by()).into_iter().flatten();
        self.governors.contains(&by) && !removals.any(|removal| removal.voids(act, act.id()))
    }
}

/// A removal, with its names where they are found fast.
#[derive(Debug, Clone)]
struct Removal {
    place: usize,
    generation: u32,
    stand: BTreeSet<ActId>,
}

impl Removal {
    fn at(place: usize, filed: &Filed) -> Option<(NodeId, Self)> {
        let Act::Remove {
            subject,
            generation,
            stand,
            ..
        } = filed.act.act()
        else {
            return None;
        };
        let removal = Self {
            place,
            generation: *generation,
            stand: stand.iter().copied().collect(),
        };
        Some((*subject, removal))
    }

    /// Whether this act, by whom it removes, counts no more if it does.
    fn voids(&self, act: &SignedAct, id: ActId) -> bool {
        act.in_generation() <= self.generation && !self.stand.contains(&id)
    }
}

/// Acts, and what does not change while they are judged.
struct Matter<'a> {
    founder: NodeId,
    acts: &'a [Filed],
    signed: BTreeMap<Governor, Vec<usize>>,
    removals: BTreeMap<NodeId, Vec<Removal>>,
    /// Which removals void each, if they count.
    against: Vec<Vec<usize>>,
}

impl<'a> Matter<'a> {
    fn new(founder: NodeId, acts: &'a [Filed]) -> Self {
        let mut signed: BTreeMap<Governor, Vec<usize>> = BTreeMap::new();
        let mut removals: BTreeMap<NodeId, Vec<Removal>> = BTreeMap::new();
        for (place, filed) in acts.iter().enumerate() {
            let by = (filed.act.by(), filed.act.in_generation());
            signed.entry(by).or_default().push(place);
            if let Some((subject, removal)) = Removal::at(place, filed) {
                removals.entry(subject).or_default().push(removal);
            }
        }
        let voiding = |(place, filed): (usize, &Filed)| {
            let removals = removals.get(&filed.act.by()).into_iter().flatten();
            // Who removes itself cannot name the act by which it does.
            let others = removals.filter(|removal| removal.place != place);
            let voiding = others.filter(|removal| removal.voids(&filed.act, filed.id));
            voiding.map(|removal| removal.place).collect()
        };
        let against = acts.iter().enumerate().map(voiding).collect();
        Self {
            founder,
            acts,
            signed,
            removals,
            against,
        }
    }

    /// `settled`: the removals of the founder that count; `None`: that is not known yet, and none voids anything.
    fn judge(&self, settled: Option<&BTreeSet<usize>>) -> Verdict {
        let none = vec![false; self.acts.len()];
        let mut possible = self.counting(&none, settled).0;
        let (sure, governors) = loop {
            let (sure, governors) = self.counting(&possible, settled);
            let at_most = self.counting(&sure, settled).0;
            // Equal voiding acts lead to equal outcomes: neither side moves any more.
            if at_most == possible {
                break (sure, governors);
            }
            possible = at_most;
        };
        let mut removals = self.removals.clone();
        for all in removals.values_mut() {
            all.retain(|removal| possible[removal.place]);
        }
        Verdict {
            sure,
            possible,
            governors,
            removals,
        }
    }
    /// Which acts count if of the removals these do, and whom that makes governors.
    fn counting(
        &self,
        voiding: &[bool],
        settled: Option<&BTreeSet<usize>>,
    ) -> (Vec<bool>, BTreeSet<Governor>) {
        let mut counts = vec![false; self.acts.len()];
        // Whatever becomes of their signers: they might rest upon what they void.
        settled
            .into_iter()
            .flatten()
            .for_each(|place| counts[*place] = true);
        let mut governors = BTreeSet::from([(self.founder, 0)]);
        let mut next = vec![(self.founder, 0)];
        while let Some(governor) = next.pop() {
            for &place in self.signed.get(&governor).into_iter().flatten() {
                if !self.stands(place, governor, voiding, settled) {
                    continue;
                }
                counts[place] = true;
                let admission = self.acts[place].act.admission();
                let new = admission.filter(|admission| admission.role.governs());
                let new = new.map(|admission| (admission.subject, admission.generation));
                next.extend(new.filter(|new| governors.insert(*new)));
            }
        }
        (counts, governors)
    }

    /// Whether an act by a governor counts if of the removals these do.
    fn stands(
        &self,
        place: usize,
        by: Governor,
        voiding: &[bool],
        settled: Option<&BTreeSet<usize>>,
    ) -> bool {
        let against = &self.against[place];
        match (self.acts[place].act.act(), settled) {
            (Act::Remove { subject, .. }, Some(settled)) if *subject == self.founder => {
                settled.contains(&place)
            }
            (_, None) if by == (self.founder, 0) => true,
            (_, Some(settled)) if by == (self.founder, 0) => !against.iter().any(|it| settled.contains(it)),
            _ => !against.iter().any(|it| voiding[*it]),
        }
    }
}
