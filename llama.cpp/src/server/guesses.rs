//! What became of the tokens that were guessed ahead: the engine counts, the API tells.

use std::ops::{Add, AddAssign};

use serde::{Serialize, Serializer, ser::SerializeMap};

/// Where guesses come from, by the names that are told; [`BySource`] has them in this order.
pub const SOURCES: [&str; 4] = ["ngram", "prediction", "model", "heads"];

/// Tokens that were sent to be verified before it was known whether they are right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Guesses {
    /// Sent.
    pub drafted: u64,
    /// Of these, right.
    pub accepted: u64,
    /// Of these, computed in vain.
    pub wasted: u64,
}

impl Add for Guesses {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            drafted: self.drafted + other.drafted,
            accepted: self.accepted + other.accepted,
            wasted: self.wasted + other.wasted,
        }
    }
}

impl AddAssign for Guesses {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Guesses of each of the [`SOURCES`], in JSON an object with their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BySource(pub [Guesses; SOURCES.len()]);

impl BySource {
    /// Those of all sources.
    pub fn total(&self) -> Guesses {
        self.0.iter().copied().fold(Guesses::default(), Add::add)
    }

    /// Each source's name and guesses.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Guesses)> {
        SOURCES.into_iter().zip(&self.0)
    }
}

impl AddAssign for BySource {
    fn add_assign(&mut self, other: Self) {
        for (own, more) in self.0.iter_mut().zip(other.0) {
            *own += more;
        }
    }
}

impl Serialize for BySource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(SOURCES.len()))?;
        for (name, guesses) in self.iter() {
            map.serialize_entry(name, guesses)?;
        }
        map.end()
    }
}

/// Windows of guesses that were on their way at once, seen each time that one left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Windows {
    /// On average; 0 where none left.
    pub mean: f32,
    /// At most.
    pub most: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_add_up_by_source_and_in_all() {
        let of = |drafted, accepted, wasted| Guesses {
            drafted,
            accepted,
            wasted,
        };
        let mut all = BySource([of(8, 3, 5), Guesses::default(), of(4, 4, 0), Guesses::default()]);
        all += BySource([of(1, 1, 0), of(2, 0, 2), Guesses::default(), Guesses::default()]);
        assert_eq!(all.total(), of(15, 8, 7));
        let json = serde_json::to_value(all).unwrap();
        assert_eq!(
            json["ngram"],
            serde_json::json!({"drafted": 9, "accepted": 4, "wasted": 5})
        );
        assert_eq!(json["prediction"]["wasted"], 2);
        assert_eq!(json.as_object().unwrap().len(), SOURCES.len());
    }
}
