//! How big a token and its parts may be.
//!
//! A list stops being read at its first item too many, and takes memory only for items that are there: what a
//! stranger claims costs nothing.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// The most characters of a token's text.
pub const MOST_CHARACTERS: usize = 500;

/// A token is issued with no more characters, if fewer addresses bring it down to that: then its holder can
/// restrict it once, in role, expiry and uses, and it can still be pasted.
pub const ISSUED_CHARACTERS: usize = 344;

/// The most blocks: the grant and restrictions.
pub const MOST_BLOCKS: usize = 8;

/// The most models in a block.
pub const MOST_MODELS: usize = 8;

/// The most bytes of a model's name.
pub const MOST_MODEL_BYTES: usize = 64;

/// The most nodes to call.
pub const MOST_CONTACTS: usize = 3;

/// The most addresses of one of them.
pub const MOST_ADDRESSES: usize = 8;

/// The most bytes of a relay's URL.
pub const MOST_RELAY_BYTES: usize = 128;

/// The most bytes of all blocks together.
pub const MOST_BYTES: usize = 1024;

/// Why a token cannot be made: it would not fit where tokens are pasted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// All of it.
    #[error(
        "the invite token would have {characters} characters, and {MOST_CHARACTERS} are the most that can be \
         pasted everywhere: name fewer models, or restrict a token that is shorter"
    )]
    Text {
        /// So many it would have.
        characters: usize,
    },
    /// Its list of models.
    #[error(
        "an invite token names at most {MOST_MODELS} models, and {count} were given: name fewer, or none to allow all"
    )]
    Models {
        /// So many were given.
        count: usize,
    },
    /// The name of a model.
    #[error(
        "the model {name} cannot be named in an invite token, where names have at most {MOST_MODEL_BYTES} bytes: \
         leave it out, or allow all models"
    )]
    Model {
        /// The name.
        name: String,
    },
    /// The URL of a relay.
    #[error(
        "the relay {url} cannot be named in an invite token, where URLs have at most {MOST_RELAY_BYTES} bytes: \
         use one with a shorter URL"
    )]
    Relay {
        /// The URL.
        url: String,
    },
}

/// A list of at most `MOST` items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Few<T, const MOST: usize>(pub(super) Vec<T>);

impl<T: Serialize, const MOST: usize> Serialize for Few<T, MOST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    if items.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }

        deserializer
            .deserialize_seq(Items::<T, MOST>(PhantomData))
            .map(Self)
    }
}

/// A text of at most `MOST` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Short<const MOST: usize>(pub(super) String);

impl<'de, const MOST: usize> Deserialize<'de> for Short<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const MOST: usize>;

        impl<const MOST: usize> Visitor<'_> for Text<MOST> {
            type Value = String;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST} bytes of text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
                if text.len() > MOST {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(text.to_owned())
            }
        }

        deserializer.deserialize_str(Text::<MOST>).map(Self)
    }
}

/// The bytes of a block, of which there are never more than of a whole token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content(pub(super) Vec<u8>);

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST_BYTES} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                if bytes.len() > MOST_BYTES {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(bytes.to_vec())
            }
        }

        deserializer.deserialize_bytes(Bytes).map(Self)
    }
}
