//! What says which model a file is. Pure.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Which definition of DESIGN.md's "Fingerprint" this is; the first byte of each fingerprint.
pub(super) const VERSION: u8 = 1;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// Which model a file is: a version byte and 31 bytes of a hash over metadata, tensor table and samples
/// of tensor data. It is the same for a model in one file and in parts.
///
/// Shown as 64 hexadecimal digits; so, too, in JSON. Binary formats take its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint with this hash.
    pub(super) fn new(hash: &Hash) -> Self {
        let mut bytes = [VERSION; 32];
        bytes[1..].copy_from_slice(&hash[..31]);
        Self(bytes)
    }

    /// The fingerprint of these bytes, whatever they say: a fingerprint is only ever compared.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The version of the definition. Fingerprints of two versions say nothing about each other.
    pub fn version(&self) -> u8 {
        self.0[0]
    }

    /// Twelve hexadecimal digits behind the version, for people: enough to tell one's models apart.
    pub fn short(&self) -> String {
        hex(&self.0[1..7])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits")]
pub struct ParseFingerprintError;

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text).map(Self).ok_or(ParseFingerprintError)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        readable::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        readable::deserialize(deserializer).map(Self)
    }
}

/// What a look at a model's tensor table tells, so that not every file's data is sampled in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outline {
    /// How many tensors the model has.
    pub tensors: u32,
    /// The length of their data together, in bytes, without padding.
    pub tensor_bytes: u64,
    /// The hash of the tensor table.
    #[serde(with = "readable")]
    pub table: [u8; 32],
}

/// What one node tells another about the model that it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Which model.
    pub fingerprint: Fingerprint,
    /// What its tensor table is like.
    pub outline: Outline,
}

/// 32 bytes as hexadecimal digits where a person may read them, as they are elsewhere.
mod readable {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&hex(bytes))
        } else {
            bytes.serialize(serializer)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            unhex(&text).ok_or_else(|| D::Error::custom("64 hexadecimal digits are needed"))
        } else {
            <[u8; 32]>::deserialize(deserializer)
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |of: u8| char::from(of).to_digit(16);
        // Two digits of four bits each.
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_back_from_its_text() {
        let fingerprint = Fingerprint::new(&[0xab; 32]);
        let text = fingerprint.to_string();
        assert_eq!(&text[..8], "01ababab");
        assert_eq!(fingerprint.short(), "abababababab");
        assert_eq!(text.parse(), Ok(fingerprint));
        for wrong in ["", "01ab", &text.replace("ab", "zz"), &format!("{text}00")] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(ParseFingerprintError));
        }
    }

    #[test]
    fn json_has_digits() {
        let identity = Identity {
            fingerprint: Fingerprint::new(&[1; 32]),
            outline: Outline {
                tensors: 2,
                tensor_bytes: 3,
                table: [4; 32],
            },
        };
        let text = serde_json::to_string(&identity).unwrap();
        assert!(text.contains(&"04".repeat(32)), "{text}");
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), identity);
    }
}
