//! What some settings hold.

use serde::Deserialize;
use std::str::FromStr;

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
    fn what_is_hidden_is_not_shown() {
        assert_eq!(format!("{:?}", Hidden("sk-1".to_owned())), "Hidden(…)");
    }
}
