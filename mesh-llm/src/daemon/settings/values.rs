//! What some settings hold.

use serde::Deserialize;
use std::str::FromStr;
use std::time::Duration;

/// Names of devices: in a file a list or, as everywhere, words with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "DevicesInFile")]
pub struct Devices(pub Vec<String>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a name, names with commas between them, or a list of names"
)]
enum DevicesInFile {
    Words(String),
    List(Vec<String>),
}

impl From<DevicesInFile> for Devices {
    fn from(devices: DevicesInFile) -> Self {
        match devices {
            DevicesInFile::Words(words) => Devices::from_words(&words),
            DevicesInFile::List(list) => Devices(list),
        }
    }
}

impl Devices {
    /// The names in `CUDA0,CUDA1`.
    pub fn from_words(words: &str) -> Devices {
        let names = words.split(',').map(str::trim).filter(|name| !name.is_empty());
        Devices(names.map(str::to_owned).collect())
    }
}

/// Words for models: in a file a list, or one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ModelNamesInFile")]
pub struct ModelNames(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a model, or a list of models")]
enum ModelNamesInFile {
    One(String),
    List(Vec<String>),
}

impl From<ModelNamesInFile> for ModelNames {
    fn from(names: ModelNamesInFile) -> Self {
        match names {
            ModelNamesInFile::One(name) => Self(vec![name]),
            ModelNamesInFile::List(names) => Self(names),
        }
    }
}

impl FromStr for ModelNames {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        // As a path may have commas, this is one.
        Ok(Self(vec![name.to_owned()]))
    }
}

/// Bytes, said in gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "GigabytesInFile")]
pub struct Gigabytes(pub u64);

/// A number that is no amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a number of gigabytes above 0, such as 7.5")]
pub struct BadGigabytes;

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of gigabytes above 0, such as 7.5")]
enum GigabytesInFile {
    Number(f64),
    Words(String),
}

impl TryFrom<GigabytesInFile> for Gigabytes {
    type Error = BadGigabytes;

    fn try_from(gigabytes: GigabytesInFile) -> Result<Self, BadGigabytes> {
        match gigabytes {
            GigabytesInFile::Number(number) => Self::new(number),
            GigabytesInFile::Words(words) => words.parse(),
        }
    }
}

impl FromStr for Gigabytes {
    type Err = BadGigabytes;

    fn from_str(words: &str) -> Result<Self, BadGigabytes> {
        Self::new(words.trim().parse().map_err(|_| BadGigabytes)?)
    }
}

impl Gigabytes {
    fn new(gigabytes: f64) -> Result<Self, BadGigabytes> {
        const MOST: f64 = 1e9;
        let fits = gigabytes > 0.0 && gigabytes <= MOST;
        fits.then(|| Self((gigabytes * 1e9).round() as u64))
            .ok_or(BadGigabytes)
    }
}

/// A time, said in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Milliseconds(pub Duration);

/// A number that is no such time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number of milliseconds above 0, such as 80")]
pub struct BadMilliseconds;

impl TryFrom<u32> for Milliseconds {
    type Error = BadMilliseconds;

    fn try_from(milliseconds: u32) -> Result<Self, BadMilliseconds> {
        match milliseconds {
            0 => Err(BadMilliseconds),
            some => Ok(Self(Duration::from_millis(some.into()))),
        }
    }
}

impl FromStr for Milliseconds {
    type Err = BadMilliseconds;

    fn from_str(words: &str) -> Result<Self, BadMilliseconds> {
        words
            .trim()
            .parse::<u32>()
            .map_err(|_| BadMilliseconds)
            .and_then(Self::try_from)
    }
}

/// A key of the API.
pub type ApiKey = Hidden;

/// Words that only those may know who need them.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        Ok(Self(words.to_owned()))
    }
}

/// Not what it is: it must not get into logs.
impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_split_at_commas() {
        assert_eq!(Devices::from_words("CUDA0, CUDA1,").0, ["CUDA0", "CUDA1"]);
        assert_eq!(Devices::from_words("").0, Vec::<String>::new());
    }

    #[test]
    fn memory_is_a_number_above_nothing() {
        let read = |text: &str| text.parse::<Gigabytes>();
        assert_eq!(read("0.000000001"), Ok(Gigabytes(1)));
        assert_eq!(read(" 7.5 "), Ok(Gigabytes(7_500_000_000)));
        for bad in ["", "0", "-1", "nan", "inf", "1e300", "7,5", "8GB"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_a_whole_number_above_nothing() {
        let read = |text: &str| text.parse::<Milliseconds>();
        assert_eq!(read(" 80 "), Ok(Milliseconds(Duration::from_millis(80))));
        for bad in ["", "0", "-1", "1.5", "80ms", "4294967296"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_hidden_is_not_shown() {
        assert_eq!(format!("{:?}", Hidden("sk-1".to_owned())), "Hidden(…)");
    }
}
