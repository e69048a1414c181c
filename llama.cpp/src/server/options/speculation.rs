//! What is told of guessing ahead.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::UnknownWord;

/// The most tokens of a window, and the most windows in flight, that can be asked for: each token of a
/// window takes a row of logits in every slot.
pub const MOST: u32 = 64;

/// Tokens of a window where the user did not say.
pub const MOST_WINDOW: u32 = 8;

/// How an answer's next tokens are guessed, so that several are verified in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speculation {
    /// A small model that guesses.
    pub draft: Option<Draft>,
    /// Tokens of a window at most.
    pub most_window: u32,
    /// What the draft model must think of a guess at least.
    pub min_p: Probability,
    /// What is used.
    pub mode: SpeculationMode,
    /// Windows in flight; none: as many as pay.
    pub windows: Option<u32>,
}

impl Default for Speculation {
    fn default() -> Self {
        Self {
            draft: None,
            most_window: MOST_WINDOW,
            min_p: Probability::default(),
            mode: SpeculationMode::default(),
            windows: None,
        }
    }
}

/// A draft model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its GGUF file, of a split model the first part.
    pub path: PathBuf,
    /// Who wants it.
    pub origin: Origin,
}

/// Who wants a draft model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user named it: without it nothing is served.
    Asked,
    /// It is the one that the catalog has for the model: without it all goes on.
    Found,
}

words! {
    /// What guesses ahead.
    SpeculationMode, "way to guess ahead", default Auto,
    /// Whatever pays.
    Auto = "auto",
    /// Nothing.
    Off = "off",
    /// The draft model alone, or heads.
    Draft = "draft",
    /// Text that was there before, alone.
    NGram = "ngram",
}

impl SpeculationMode {
    /// Whether the draft model, or heads, are of use.
    pub fn uses_draft(self) -> bool {
        matches!(self, Self::Auto | Self::Draft)
    }
}

/// From 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(try_from = "f32")]
pub struct Probability(f32);

/// It is never NaN.
impl Eq for Probability {}

/// A number that is no [`Probability`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no probability: give a number from 0 to 1")]
pub struct BadProbability(String);

impl Probability {
    /// The number.
    pub fn get(self) -> f32 {
        self.0
    }
}

impl TryFrom<f32> for Probability {
    type Error = BadProbability;

    fn try_from(number: f32) -> Result<Self, BadProbability> {
        if (0.0..=1.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(BadProbability(number.to_string()))
        }
    }
}

impl FromStr for Probability {
    type Err = BadProbability;

    fn from_str(text: &str) -> Result<Self, BadProbability> {
        let bad = || BadProbability(text.to_owned());
        let number: f32 = text.trim().parse().map_err(|_| bad())?;
        Self::try_from(number).map_err(|_| bad())
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of tokens or windows, from 1 to [`MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Count(u32);

/// A number that is no [`Count`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not possible: give a whole number from 1 to {MOST}")]
pub struct BadCount(String);

impl Count {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Count {
    type Error = BadCount;

    fn try_from(number: u32) -> Result<Self, BadCount> {
        if (1..=MOST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(BadCount(number.to_string()))
        }
    }
}

impl FromStr for Count {
    type Err = BadCount;

    fn from_str(text: &str) -> Result<Self, BadCount> {
        let bad = || BadCount(text.to_owned());
        let number: u32 = text.trim().parse().map_err(|_| bad())?;
        Self::try_from(number).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_is_from_0_to_1() {
        for (text, number) in [("0", 0.0), ("0.75", 0.75), (" 1 ", 1.0)] {
            assert_eq!(text.parse::<Probability>().unwrap().get(), number);
        }
        for bad in ["", "-0.1", "1.1", "NaN", "inf", "half"] {
            let error = bad.parse::<Probability>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{bad}`")) && error.contains("0 to 1"),
                "{error}"
            );
        }
        assert_eq!(serde_json::from_str::<Probability>("0.5").unwrap().get(), 0.5);
        assert!(serde_json::from_str::<Probability>("1.5").is_err());
    }

    #[test]
    fn a_probability_is_read_as_it_is_written() {
        for text in ["0", "0.1", "0.333", "1"] {
            assert_eq!(text.parse::<Probability>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_count_has_bounds() {
        assert_eq!("1".parse::<Count>().unwrap().get(), 1);
        assert_eq!("64".parse::<Count>().unwrap().get(), MOST);
        for bad in ["0", "65", "-1", "8.0", ""] {
            let error = bad.parse::<Count>().unwrap_err().to_string();
            assert!(error.contains("1 to 64"), "{error}");
        }
        assert!(serde_json::from_str::<Count>("0").is_err());
    }

    #[test]
    fn only_some_ways_need_a_draft_model() {
        let with: Vec<_> = SpeculationMode::ALL
            .iter()
            .filter(|mode| mode.uses_draft())
            .collect();
        assert_eq!(with, [&SpeculationMode::Auto, &SpeculationMode::Draft]);
    }
}
