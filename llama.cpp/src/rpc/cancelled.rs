//! Steps that need not be computed any more. Pure.

use std::collections::BTreeMap;

use super::wire::Step;

/// Ranges that are remembered. Where there are more the oldest are forgotten, and what is left of them is
/// computed for nothing.
const MOST_RANGES: usize = 1024;

/// Ranges of steps, none of which touches another.
#[derive(Debug, Default)]
pub(super) struct Cancelled(BTreeMap<u64, u64>);

impl Cancelled {
    /// Steps from `first` to `last`, too.
    pub(super) fn add(&mut self, first: Step, last: Step) {
        let (Step(mut first), Step(mut last)) = (first, last);
        if first > last {
            return;
        }
        let touching = |(from, to): (&u64, &u64)| (*to >= first.saturating_sub(1)).then_some((*from, *to));
        // From the last one that begins before the end of this one backwards, as far as they touch it.
        let before = self.0.range(..=last.saturating_add(1)).rev();
        let joined: Vec<(u64, u64)> = before.map_while(touching).collect();
        for (from, to) in joined {
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
        if self.0.len() > MOST_RANGES {
            self.0.pop_first();
        }
    }

    /// Whether a step is among them.
    pub(super) fn has(&self, step: Step) -> bool {
        let before = self.0.range(..=step.0).next_back();
        before.is_some_and(|(_, last)| *last >= step.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn any_number_of_steps_one_by_one_is_one_range() {
        let mut cancelled = Cancelled::default();
        (1..100_000).for_each(|step| cancelled.add(Step(step), Step(step)));
        assert_eq!(cancelled.0.len(), 1);
        assert!(cancelled.has(Step(1)) && cancelled.has(Step(99_999)));
        assert!(!cancelled.has(Step(0)) && !cancelled.has(Step(100_000)));
    }

    #[test]
    fn of_too_many_ranges_the_oldest_are_forgotten() {
        let mut cancelled = Cancelled::default();
        let last = 4 * MOST_RANGES as u64;
        (0..=last)
            .step_by(2)
            .for_each(|step| cancelled.add(Step(step), Step(step)));
        assert_eq!(cancelled.0.len(), MOST_RANGES);
        assert!(cancelled.has(Step(last)) && !cancelled.has(Step(0)));
    }

    proptest! {
        #[test]
        fn it_has_what_was_added(ranges in prop::collection::vec((0u64..60, 0u64..8), 0..20)) {
            let mut cancelled = Cancelled::default();
            let mut expected = HashSet::new();
            for (first, more) in ranges {
                cancelled.add(Step(first), Step(first + more));
                expected.extend(first..=first + more);
            }
            for step in 0..80 {
                prop_assert_eq!(cancelled.has(Step(step)), expected.contains(&step));
            }
        }

        #[test]
        fn no_numbers_break_it(ranges in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
            let mut cancelled = Cancelled::default();
            for (first, last) in ranges {
                cancelled.add(Step(first), Step(last));
                prop_assert!(first > last || (cancelled.has(Step(first)) && cancelled.has(Step(last))));
            }
        }
    }
}
