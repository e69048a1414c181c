//! Frames: a length and so many bytes.

use super::Bounded;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// Bytes of a frame's length.
const HEAD_BYTES: usize = 4;

/// Whole bytes, ready to be sent.
pub type Frame = Vec<u8>;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More than a message of its kind may have.
    #[error("a message of {bytes} bytes, where {most} are the most")]
    TooLong {
        /// What the length says.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// No message of this protocol.
    #[error("a message that makes no sense: {0}")]
    Senseless(String),
}

/// A message as a frame.
///
/// # Errors
/// If it is longer than its kind may be.
pub fn encode<M: Serialize + Bounded>(message: &M) -> Result<Frame, FrameError> {
    let mut frame = vec![0; HEAD_BYTES];
    frame = postcard::to_extend(message, frame).map_err(|error| FrameError::Senseless(error.to_string()))?;
    let bytes = frame.len() - HEAD_BYTES;
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= M::MOST_BYTES);
    let Some(length) = length else {
        return Err(FrameError::TooLong {
            bytes,
            most: M::MOST_BYTES,
        });
    };
    frame[..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Puts messages of one kind together from bytes as they come. Of a message it keeps what has come, never what its
/// length promises.
#[derive(Debug)]
pub struct Reader<M> {
    bytes: Vec<u8>,
    message: PhantomData<fn() -> M>,
}

impl<M> Default for Reader<M> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            message: PhantomData,
        }
    }
}

impl<M: DeserializeOwned + Bounded> Reader<M> {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if all of it has come.
    ///
    /// # Errors
    /// If it is none: whatever follows makes no sense either.
    pub fn pop(&mut self) -> Result<Option<M>, FrameError> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let bytes = u32::from_le_bytes(*head) as usize;
        if bytes > M::MOST_BYTES {
            return Err(FrameError::TooLong {
                bytes,
                most: M::MOST_BYTES,
            });
        }
        let Some(body) = rest.get(..bytes) else {
            return Ok(None);
        };
        let message = postcard::from_bytes(body).map_err(|error| FrameError::Senseless(error.to_string()))?;
        self.bytes.drain(..HEAD_BYTES + bytes);
        Ok(Some(message))
    }

    /// What came after the last message that was taken: bytes of whatever follows the messages.
    pub fn into_rest(self) -> Vec<u8> {
        self.bytes
    }

    /// How many more bytes the next message needs at least; reading more than that may be reading what is not a
    /// message any more.
    pub fn wants(&self) -> usize {
        match self.bytes.split_first_chunk::<HEAD_BYTES>() {
            None => HEAD_BYTES - self.bytes.len(),
            Some((head, rest)) => (u32::from_le_bytes(*head) as usize).saturating_sub(rest.len()),
        }
    }
}

#[cfg(test)]
impl<M> Reader<M> {
    /// How much memory it has taken.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
