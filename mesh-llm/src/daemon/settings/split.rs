//! What is said about a model that is split over machines.

use super::Hidden;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How the model is split; no workers: not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitSettings {
    /// The workers, in the order of the layers.
    pub workers: Vec<Worker>,
    /// What they and this machine know; none: what the state directory has.
    pub secret: Option<SecretSource>,
    /// Layers, or shares of them, of this machine and then of each worker; none: the engine chooses.
    pub shares: Vec<u32>,
}

/// Where a worker listens: `HOST:PORT`, looked up when it is called.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Worker(String);

/// An address that is no [`Worker`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a worker: write NAME:PORT or ADDRESS:PORT, such as 10.0.0.2:9338")]
pub struct BadWorker(String);

impl FromStr for Worker {
    type Err = BadWorker;

    fn from_str(text: &str) -> Result<Self, BadWorker> {
        let bad = || BadWorker(text.to_owned());
        let text = text.trim();
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        // Only in brackets is it clear where an address of IPv6 ends.
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let is_word = |name: &str| {
            let forbidden = |c: char| c.is_whitespace() || c.is_control() || "[]/,@".contains(c);
            !name.is_empty() && !name.contains(forbidden)
        };
        match port.parse::<u16>() {
            Ok(1..) if is_word(name) => Ok(Self(text.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Worker {
    type Error = BadWorker;

    fn try_from(text: String) -> Result<Self, BadWorker> {
        text.parse()
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Workers: in a file a list or, as everywhere, words with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WorkersInFile")]
pub struct Workers(pub Vec<Worker>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "NAME:PORT, several of them with commas between, or a list of them"
)]
enum WorkersInFile {
    Words(String),
    List(Vec<String>),
}

impl TryFrom<WorkersInFile> for Workers {
    type Error = BadWorker;

    fn try_from(workers: WorkersInFile) -> Result<Self, BadWorker> {
        match workers {
            WorkersInFile::Words(words) => words.parse(),
            WorkersInFile::List(list) => {
                let workers = list.into_iter().map(Worker::try_from);
                Ok(Self(workers.collect::<Result<_, _>>()?))
            }
        }
    }
}

impl FromStr for Workers {
    type Err = BadWorker;

    fn from_str(words: &str) -> Result<Self, BadWorker> {
        let workers = words.split(',').map(Worker::from_str);
        Ok(Self(workers.collect::<Result<_, _>>()?))
    }
}

/// Layers, or shares of them: in a file a list or, as everywhere, numbers with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SharesInFile")]
pub struct TensorSplit(pub Vec<u32>);

/// Numbers that are no [`TensorSplit`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` divides no layers: write whole numbers with commas between them, this machine's first, such as 20,4"
)]
pub struct BadSplit(String);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "numbers with commas between them, such as '20,4', or a list of numbers"
)]
enum SharesInFile {
    Words(String),
    List(Vec<u32>),
}

impl TryFrom<SharesInFile> for TensorSplit {
    type Error = BadSplit;

    fn try_from(shares: SharesInFile) -> Result<Self, BadSplit> {
        match shares {
            SharesInFile::Words(words) => words.parse(),
            SharesInFile::List(shares) if shares.iter().any(|share| *share > 0) => Ok(Self(shares)),
            SharesInFile::List(shares) => Err(BadSplit(format!("{shares:?}"))),
        }
    }
}

impl FromStr for TensorSplit {
    type Err = BadSplit;

    fn from_str(words: &str) -> Result<Self, BadSplit> {
        let shares = words.split(',').map(|word| word.trim().parse());
        match shares.collect::<Result<Vec<u32>, _>>() {
            Ok(shares) if shares.iter().any(|share| *share > 0) => Ok(Self(shares)),
            _ => Err(BadSplit(words.to_owned())),
        }
    }
}

/// Where the secret of a split is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "PathBuf")]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment, which other users do not see.
    Variable(Hidden),
}

impl From<PathBuf> for SecretSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_worker_has_a_host_and_a_port() {
        for good in ["10.0.0.2:9338", "shed.local:1", "[fe80::1]:65535", " a:1 "] {
            assert_eq!(good.parse::<Worker>().unwrap().to_string(), good.trim());
        }
        for bad in [
            "",
            "shed",
            "shed:",
            ":9338",
            "shed:0",
            "shed:65536",
            "shed:http",
            "::1:9338",
            "[::1:9338",
            "[]:9338",
            "http://shed:9338",
            "a b:1",
        ] {
            let error = bad.parse::<Worker>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{bad}`")) && error.contains("10.0.0.2:9338"),
                "{error}"
            );
        }
    }

    #[test]
    fn workers_are_a_list_or_words() {
        #[derive(Deserialize)]
        struct File {
            rpc: Workers,
        }
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.rpc);
        assert_eq!(read("rpc = 'a:1, b:2'").unwrap(), "a:1,b:2".parse().unwrap());
        assert_eq!(read("rpc = ['a:1', 'b:2']").unwrap(), "a:1,b:2".parse().unwrap());
        assert!(
            read("rpc = ['a']")
                .unwrap_err()
                .message()
                .contains("`a` is no address")
        );
        assert!(read("rpc = 3").unwrap_err().message().contains("NAME:PORT"));
        assert!("a:1,,b:2".parse::<Workers>().is_err());
    }

    #[test]
    fn shares_are_a_list_or_words() {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct File {
            tensor_split: TensorSplit,
        }
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.tensor_split.0);
        assert_eq!(read("tensor-split = '20, 4'").unwrap(), [20, 4]);
        assert_eq!(read("tensor-split = [0, 4]").unwrap(), [0, 4]);
        for bad in ["", "0,0", "20;4", "20,", "-1,4", "0.5,0.5"] {
            let error = bad.parse::<TensorSplit>().unwrap_err().to_string();
            assert!(error.contains("such as 20,4"), "{error}");
        }
        assert!(
            read("tensor-split = [0]")
                .unwrap_err()
                .message()
                .contains("`[0]`")
        );
        assert!(
            read("tensor-split = 0.5")
                .unwrap_err()
                .message()
                .contains("list of numbers")
        );
    }

    proptest! {
        #[test]
        fn shares_are_read_as_they_are_written(shares in proptest::collection::vec(1..1000u32, 1..9)) {
            let words: Vec<_> = shares.iter().map(u32::to_string).collect();
            prop_assert_eq!(words.join(",").parse(), Ok(TensorSplit(shares)));
        }

        #[test]
        fn no_words_are_too_strange(words in ".{0,40}") {
            // It must not panic.
            let _ = (words.parse::<Workers>(), words.parse::<TensorSplit>());
        }
    }
}
