//! What a machine that was told to serve nothing takes on for the mesh.
//!
//! What is wanted and nobody serves comes first, then what a machine wanted that was lost, then copies of what is
//! asked for more than its copies can answer at once. Each machine decides for itself; they look after one another by
//! waiting their [`turn`], so that mostly one of them takes a model on, and the others see that.

mod remembered;

pub use remembered::{Remembered, Told, Wanted};

use super::place::MachineId;
use std::cmp::Reverse;
use std::time::Duration;

/// How long a machine waits for each of those whose turn it is before: they are heard of within that time.
const EACH_TURN: Duration = Duration::from_secs(2);

/// A model of the mesh that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Bytes that it needs where it is served alone.
    pub bytes: u64,
    /// By whom it is wanted.
    pub wanted: Wanted,
    /// Whether it is divided over machines, or is to be.
    pub is_split: bool,
    /// Who serves it.
    pub served: Served,
    /// Whether it would be served without this machine.
    pub is_elsewhere: bool,
    /// Whether it needs more than all machines offer.
    pub is_hopeless: bool,
}

/// How a model is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Not at all: there is no room.
    No,
    /// Not at all: it was tried.
    Failed,
    /// Somebody is about to.
    Soon,
    /// By machines that answer so many requests at once, of so many.
    Yes {
        /// What all of them answer at once.
        slots: u32,
        /// What they are asked at the moment.
        requests: u32,
    },
}

/// What the mesh needs of a model: the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A machine wants it, and none serves it.
    Unserved,
    /// A machine wanted it that was lost, and none serves it.
    Lost,
    /// More is asked of it than is answered at once.
    Busy,
}

/// How a machine comes by a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// It has it.
    OnDisk,
    /// It can be downloaded.
    Catalog,
}

/// The room of a machine, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Beside the model that nobody asked for.
    pub beside: u64,
    /// Where that one makes room.
    pub most: u64,
}

/// Why a machine should give up what it took on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody wants it.
    Unwanted,
    /// Another machine serves it as well, and one that nobody asked for made room for it.
    Spare,
    /// Another model waits for room, and this one would be served without this machine, or is wanted by none that is there.
    InTheWay,
}

/// What a machine may take on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<'a> {
    /// Which.
    pub model: &'a Model,
    /// For what.
    pub need: Need,
    /// From where.
    pub source: Source,
}

/// A machine that could take a model on, as far as it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it need not be downloaded.
    pub has_it: bool,
    /// Bytes of it that the machine reads a second; 0: that is not known.
    pub bandwidth: u64,
    /// Which.
    pub machine: MachineId,
}

impl Model {
    /// What the mesh needs of it, if anything. Where a machine that is there wants it divided, that is a matter of the plan.
    pub fn need(&self) -> Option<Need> {
        match (self.wanted, self.served) {
            (Wanted::Now, Served::No | Served::Failed) => (!self.is_split).then_some(Need::Unserved),
            (Wanted::Before, Served::No | Served::Failed) => Some(Need::Lost),
            (_, Served::Yes { slots, requests }) => {
                (requests > slots && !self.is_split).then_some(Need::Busy)
            }
            (_, Served::Soon) => None,
        }
    }

    /// Whether a machine that is there waits for room, and not in vain.
    fn waits(&self) -> bool {
        self.wanted == Wanted::Now && self.served == Served::No && !self.is_hopeless
    }

    /// How many times as much is asked as can be answered at once, in thousandths.
    fn pressure(&self) -> u64 {
        match self.served {
            Served::Yes { slots, requests } => 1000 * u64::from(requests) / u64::from(slots.max(1)),
            _ => 0,
        }
    }
}

/// What may be taken on, the best first.
///
/// What is needed most comes first; of that, what is on disk; then what is asked most for what it can answer; then the
/// smallest. What was wanted by a machine that was lost is not worth a download, and may be too large for one machine: the
/// plan divides it. Neither that nor a further copy takes room for which a model waits. `source` says how the machine
/// would come by a model, if at all.
pub fn choices(models: &[Model], room: Room, source: impl Fn(&str) -> Option<Source>) -> Vec<Choice<'_>> {
    let somebody_waits = models.iter().any(Model::waits);
    let possible = models.iter().filter_map(|model| {
        let (need, source) = (model.need()?, source(&model.name)?);
        let is_possible = match need {
            Need::Unserved => model.bytes <= room.most,
            Need::Lost => !somebody_waits && source == Source::OnDisk && !model.is_hopeless,
            Need::Busy => !somebody_waits && !room.is_tight_for(model),
        };
        is_possible.then_some(Choice { model, need, source })
    });
    let mut choices: Vec<_> = possible.collect();
    choices.sort_by_key(|choice| {
        let Choice { model, need, source } = *choice;
        (need, source, Reverse(model.pressure()), model.bytes, &model.name)
    });
    choices
}

/// Why a machine should not go on with the model of this name, which it took on, if there is a reason. `made_room`: one
/// that nobody asked for made room for it.
pub fn doubt(name: &str, made_room: bool, models: &[Model]) -> Option<Doubt> {
    let Some(own) = models.iter().find(|model| model.name == name) else {
        return Some(Doubt::Unwanted);
    };
    if made_room && own.is_elsewhere {
        return Some(Doubt::Spare);
    }
    let is_needed = own.wanted == Wanted::Now && !own.is_elsewhere;
    let is_in_the_way = || models.iter().any(|model| model.name != name && model.waits());
    (!is_needed && is_in_the_way()).then_some(Doubt::InTheWay)
}

impl Doubt {
    /// How long it has to last: who wanted it may only start anew, and who waits may be about to be served.
    pub fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Doubt::Unwanted => 3,
            Doubt::Spare => 10,
            Doubt::InTheWay => 30,
        })
    }
}

impl Room {
    /// Whether the model that nobody asked for has to make room for this one: it takes more than is reckoned.
    pub fn is_tight_for(&self, model: &Model) -> bool {
        model.bytes.saturating_add(model.bytes / 4) > self.beside
    }
}

/// How many of the others come before `me`: those that have the model, then the quicker ones, then by id.
pub fn turn(me: Candidate, others: impl Iterator<Item = Candidate>) -> u32 {
    let rank = |candidate: Candidate| {
        let Candidate {
            has_it,
            bandwidth,
            machine,
        } = candidate;
        (!has_it, Reverse(bandwidth), machine)
    };
    let before = others.filter(|other| rank(*other) < rank(me));
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}

/// How long a need has to last before a machine whose turn it is takes the model on. Machines that start may be about to serve
/// what nobody serves; one that was lost may be back in a moment, and nothing makes room for its model before it stays away;
/// who asks much may have enough after a while, the longer if the model has to be downloaded.
pub fn patience(need: Need, source: Source, makes_room: bool, turn: u32) -> Duration {
    let first = match (need, source) {
        (Need::Unserved, _) => Duration::from_millis(500),
        (Need::Lost, _) if makes_room => Duration::from_secs(30),
        (Need::Lost, _) => Duration::from_secs(3),
        (Need::Busy, Source::OnDisk) => Duration::from_secs(5),
        (Need::Busy, Source::Catalog) => Duration::from_secs(60),
    };
    first.saturating_add(EACH_TURN.saturating_mul(turn))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, bytes: u64, wanted: Wanted, served: Served) -> Model {
        Model {
            name: name.to_owned(),
            bytes,
            wanted,
            is_split: false,
            served,
            is_elsewhere: false,
            is_hopeless: false,
        }
    }

    fn unserved(name: &str, bytes: u64) -> Model {
        model(name, bytes, Wanted::Now, Served::No)
    }

    fn lost(name: &str, bytes: u64) -> Model {
        model(name, bytes, Wanted::Before, Served::No)
    }

    fn asked(name: &str, bytes: u64, requests: u32) -> Model {
        model(name, bytes, Wanted::Now, Served::Yes { slots: 4, requests })
    }

    fn room(beside: u64, most: u64) -> Room {
        Room { beside, most }
    }

    fn on_disk(_: &str) -> Option<Source> {
        Some(Source::OnDisk)
    }

    fn chosen(models: &[Model], room: Room, source: impl Fn(&str) -> Option<Source>) -> Option<&str> {
        let choices = choices(models, room, source);
        choices.first().map(|choice| choice.model.name.as_str())
    }

    #[test]
    fn what_is_on_disk_comes_first_then_the_smallest_and_nothing_that_does_not_fit() {
        let all = [
            unserved("a", 8),
            unserved("b", 4),
            unserved("c", 6),
            unserved("d", 2),
        ];
        let source = |model: &str| match model {
            "a" | "c" => Some(Source::OnDisk),
            "b" => Some(Source::Catalog),
            _ => None,
        };
        let chosen = |most| chosen(&all, room(0, most), source);
        assert_eq!(chosen(8), Some("c"));
        assert_eq!(chosen(5), Some("b"));
        assert_eq!(chosen(3), None, "nobody knows where to get it");
    }

    #[test]
    fn what_is_asked_most_for_what_it_can_answer_gets_a_copy_where_none_has_to_make_room() {
        let all = [
            asked("a", 1, 5),
            asked("b", 2, 9),
            asked("c", 9, 99),
            asked("d", 1, 4),
        ];
        assert_eq!(chosen(&all, room(2, 100), on_disk), Some("b"));
        assert_eq!(chosen(&all, room(1, 100), on_disk), Some("a"));
        assert_eq!(chosen(&all[3..], room(9, 9), on_disk), None, "it can answer all");
        let soon = [model("a", 1, Wanted::Now, Served::Soon)];
        assert_eq!(chosen(&soon, room(9, 9), on_disk), None);
        let group = [Model {
            is_split: true,
            ..asked("a", 1, 9)
        }];
        assert_eq!(
            chosen(&group, room(9, 9), on_disk),
            None,
            "a copy would end the group"
        );
    }

    #[test]
    fn what_a_lost_machine_wanted_is_taken_on_from_disk_however_large_but_never_downloaded() {
        let all = [lost("a", 100), asked("b", 1, 9)];
        assert_eq!(chosen(&all, room(9, 9), on_disk), Some("a"));
        let catalog = |_: &str| Some(Source::Catalog);
        assert_eq!(chosen(&all[..1], room(999, 999), catalog), None);
        let divided = [Model {
            is_split: true,
            ..lost("a", 1)
        }];
        assert_eq!(chosen(&divided, room(9, 9), on_disk), Some("a"));
        let hopeless = [Model {
            is_hopeless: true,
            ..lost("a", 100)
        }];
        assert_eq!(chosen(&hopeless, room(9, 9), on_disk), None);
    }

    #[test]
    fn nothing_else_takes_room_for_which_a_model_waits() {
        let all = [lost("a", 1), asked("b", 1, 9), unserved("c", 10)];
        assert_eq!(chosen(&all, room(9, 9), on_disk), None);
        assert_eq!(chosen(&all, room(9, 10), on_disk), Some("c"));
        let failed = [lost("a", 1), model("c", 10, Wanted::Now, Served::Failed)];
        assert_eq!(
            chosen(&failed, room(9, 9), on_disk),
            Some("a"),
            "no room helps that one"
        );
        let divided = [
            lost("a", 1),
            Model {
                is_split: true,
                ..unserved("c", 1)
            },
        ];
        assert_eq!(chosen(&divided, room(9, 9), on_disk), None);
    }

    #[test]
    fn what_was_taken_on_is_kept_while_it_is_wanted_and_in_nobody_s_way() {
        let busy = Model {
            is_elsewhere: true,
            ..asked("a", 1, 1)
        };
        let needed = asked("a", 1, 1);
        let ghost = model(
            "a",
            1,
            Wanted::Before,
            Served::Yes {
                slots: 1,
                requests: 0,
            },
        );
        let waiting = unserved("b", 9);
        let doubt = |models: &[Model]| doubt("a", false, models);
        for kept in [busy.clone(), needed.clone(), ghost.clone()] {
            assert_eq!(doubt(&[kept, asked("b", 1, 1)]), None);
        }
        assert_eq!(doubt(&[asked("b", 1, 1)]), Some(Doubt::Unwanted));
        assert_eq!(doubt(&[needed.clone(), waiting.clone()]), None);
        assert_eq!(doubt(&[busy.clone(), waiting.clone()]), Some(Doubt::InTheWay));
        assert_eq!(doubt(&[ghost, waiting.clone()]), Some(Doubt::InTheWay));
        assert_eq!(doubt(&[unserved("a", 9)]), None, "it waits itself");
        let hopeless = Model {
            is_hopeless: true,
            ..waiting
        };
        assert_eq!(
            doubt(&[busy.clone(), hopeless]),
            None,
            "no room is enough for that"
        );
        // What nobody asked for is wanted back.
        assert_eq!(super::doubt("a", true, &[busy]), Some(Doubt::Spare));
        assert_eq!(super::doubt("a", true, &[needed]), None);
    }

    #[test]
    fn who_has_it_goes_first_then_the_quickest_and_all_have_different_turns() {
        let candidate = |number: u8, has_it: bool, bandwidth| Candidate {
            has_it,
            bandwidth,
            machine: MachineId([number; 32]),
        };
        let all = [
            candidate(1, false, 900),
            candidate(2, true, 50),
            candidate(3, true, 400),
            candidate(4, true, 50),
            candidate(5, false, 900),
        ];
        let turns = all.map(|me| turn(me, all.iter().copied().filter(|other| *other != me)));
        assert_eq!(turns, [3, 1, 0, 2, 4]);
        let waits = turns.map(|turn| patience(Need::Unserved, Source::OnDisk, false, turn).as_millis());
        assert_eq!(waits, [6_500, 2_500, 500, 4_500, 8_500]);
    }
}
