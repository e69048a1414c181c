//! What machines want, those included that were lost a while ago.

use super::super::place::MachineId;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a model is wanted that a lost machine wanted, from when it was last used.
const OUTLIVES: Duration = Duration::from_secs(60 * 60);

/// That a machine wants a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub model: String,
    /// Bytes that it needs where it is served alone.
    pub bytes: u64,
    /// Whether it is to be divided even where it fits on one machine.
    pub is_split: bool,
}

/// By whom a model is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// A machine that is there.
    Now,
    /// One that was lost.
    Before,
}

/// What each machine wants, or wanted when it was lost.
#[derive(Debug, Clone, Default)]
pub struct Remembered(BTreeMap<MachineId, Machine>);

#[derive(Debug, Clone)]
struct Machine {
    wants: Vec<Told>,
    /// Since when it is lost, or something that it wanted was last used.
    lost: Option<Duration>,
}

impl Remembered {
    /// What is wanted at the time `now`, when these machines are there and want that, and these models are used. A machine
    /// that is there wants what it says; what it dropped, nobody wanted.
    pub fn wanted(
        &mut self,
        now: Duration,
        there: BTreeMap<MachineId, Vec<Told>>,
        is_used: impl Fn(&str) -> bool,
    ) -> Vec<(Told, Wanted)> {
        for (id, machine) in &mut self.0 {
            if !there.contains_key(id) {
                let in_use = machine.wants.iter().any(|want| is_used(&want.model));
                machine.lost = machine.lost.filter(|_| !in_use).or(Some(now));
            }
        }
        for (id, wants) in there {
            self.0.insert(id, Machine { wants, lost: None });
        }
        self.0.retain(|_, machine| {
            let is_over = |lost| now.saturating_sub(lost) >= OUTLIVES;
            !machine.wants.is_empty() && !machine.lost.is_some_and(is_over)
        });
        let mut all: BTreeMap<&str, (Told, Wanted)> = BTreeMap::new();
        for machine in self.0.values() {
            let by = if machine.lost.is_none() {
                Wanted::Now
            } else {
                Wanted::Before
            };
            for want in &machine.wants {
                all.entry(&want.model)
                    .and_modify(|(known, wanted)| merge(known, wanted, want, by))
                    .or_insert_with(|| (want.clone(), by));
            }
        }
        all.into_values().collect()
    }
}

/// Who is there knows better than who was lost; of those alike, the one that needs less counts: so nobody keeps others from
/// serving a model, and how much it needs here is up to this machine's settings.
fn merge(known: &mut Told, wanted: &mut Wanted, other: &Told, by: Wanted) {
    match by.cmp(wanted) {
        std::cmp::Ordering::Less => (*known, *wanted) = (other.clone(), by),
        std::cmp::Ordering::Equal => {
            known.bytes = known.bytes.min(other.bytes);
            known.is_split |= other.is_split;
        }
        std::cmp::Ordering::Greater => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(model: &str) -> Told {
        Told {
            model: model.to_owned(),
            bytes: 1,
            is_split: false,
        }
    }

    fn machines(all: &[(u8, &[&str])]) -> BTreeMap<MachineId, Vec<Told>> {
        let all = all.iter();
        all.map(|(number, wants)| {
            let wants = wants.iter().map(|model| told(model)).collect();
            (MachineId([*number; 32]), wants)
        })
        .collect()
    }

    /// What is wanted at this second.
    fn at(
        memory: &mut Remembered,
        seconds: u64,
        there: &[(u8, &[&str])],
        used: &str,
    ) -> Vec<(String, Wanted)> {
        let wanted = memory.wanted(Duration::from_secs(seconds), machines(there), |model| {
            model == used
        });
        wanted.into_iter().map(|(told, by)| (told.model, by)).collect()
    }

    fn wanted(all: &[(&str, Wanted)]) -> Vec<(String, Wanted)> {
        all.iter().map(|(model, by)| ((*model).to_owned(), *by)).collect()
    }

    #[test]
    fn what_a_lost_machine_wanted_is_wanted_for_an_hour_after_its_last_use() {
        let mut memory = Remembered::default();
        assert_eq!(
            at(&mut memory, 0, &[(1, &["a"])], ""),
            wanted(&[("a", Wanted::Now)])
        );
        assert_eq!(at(&mut memory, 100, &[], ""), wanted(&[("a", Wanted::Before)]));
        assert_eq!(at(&mut memory, 3_000, &[], "a"), wanted(&[("a", Wanted::Before)]));
        assert_eq!(at(&mut memory, 6_599, &[], "b"), wanted(&[("a", Wanted::Before)]));
        assert_eq!(at(&mut memory, 6_600, &[], ""), []);
        assert_eq!(at(&mut memory, 6_601, &[], "a"), [], "it is over");
    }

    #[test]
    fn a_machine_that_is_there_wants_what_it_says_and_nothing_else() {
        let mut memory = Remembered::default();
        at(&mut memory, 0, &[(1, &["a", "b"])], "");
        assert_eq!(
            at(&mut memory, 1, &[(1, &["b"])], "a"),
            wanted(&[("b", Wanted::Now)]),
            "it dropped the other"
        );
        assert_eq!(at(&mut memory, 2, &[], ""), wanted(&[("b", Wanted::Before)]));
        assert_eq!(at(&mut memory, 3, &[(1, &[])], ""), [], "it is back without it");
    }

    #[test]
    fn who_is_there_knows_better_than_who_was_lost() {
        let mut memory = Remembered::default();
        let want = |bytes, is_split| {
            vec![Told {
                bytes,
                is_split,
                ..told("a")
            }]
        };
        let id = |number| MachineId([number; 32]);
        memory.wanted(Duration::ZERO, [(id(1), want(9, true))].into(), |_| false);
        let both = [(id(2), want(2, false)), (id(3), want(3, false))];
        let wanted = memory.wanted(Duration::ZERO, both.into(), |_| false);
        assert_eq!(wanted, [(want(2, false).remove(0), Wanted::Now)]);
    }
}
