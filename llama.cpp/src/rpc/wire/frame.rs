//! Frames: `u32` length of the message, `u32` length of the payload (both little-endian), the message
//! in postcard's coding, the payload.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Bytes of the two lengths.
pub const HEAD: usize = 8;
/// Longest message: a graph of the most tensors is shorter.
pub const LONGEST_MESSAGE: usize = 32 << 20;
/// Longest payload.
pub const LONGEST_PAYLOAD: usize = 256 << 20;
/// Longest message before the peer has proved who it is.
pub const LONGEST_GREETING: usize = 1 << 10;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// Longer than is allowed.
    #[error("a frame of {message} and {payload} bytes is longer than allowed")]
    TooLong {
        /// Bytes of the message.
        message: usize,
        /// Bytes of the payload.
        payload: usize,
    },
    /// The message is none of this protocol's version.
    #[error("a message is not understood")]
    Message,
}

/// The lengths of a frame's message and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Bytes of the message.
    pub message: usize,
    /// Bytes of the payload.
    pub payload: usize,
}

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message.
    pub message: usize,
    /// Bytes of a payload.
    pub payload: usize,
}

impl Limits {
    /// Before the peer has proved who it is.
    pub const GREETING: Self = Self {
        message: LONGEST_GREETING,
        payload: 0,
    };
    /// Afterwards.
    pub const ADMITTED: Self = Self {
        message: LONGEST_MESSAGE,
        payload: LONGEST_PAYLOAD,
    };
}

/// Appends a frame to `out`.
///
/// # Panics
/// Where a message or payload is longer than [`Limits::ADMITTED`]: the callers keep below it.
pub fn append(out: &mut Vec<u8>, message: &impl Serialize, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let written = postcard::to_extend(message, std::mem::take(out));
    *out = written.expect("postcard codes every type of this protocol");
    let length = out.len() - start - HEAD;
    assert!(
        length <= LONGEST_MESSAGE && payload.len() <= LONGEST_PAYLOAD,
        "a frame of {length} and {} bytes",
        payload.len()
    );
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Reads the lengths.
///
/// # Errors
/// [`FrameFault::TooLong`].
pub fn lengths(head: [u8; HEAD], limits: Limits) -> Result<Lengths, FrameFault> {
    let [a, b, c, d, e, f, g, h] = head;
    let message = u32::from_le_bytes([a, b, c, d]) as usize;
    let payload = u32::from_le_bytes([e, f, g, h]) as usize;
    if message > limits.message || payload > limits.payload {
        return Err(FrameFault::TooLong { message, payload });
    }
    Ok(Lengths { message, payload })
}

/// Reads a message, which must fill `bytes`.
///
/// # Errors
/// [`FrameFault::Message`].
pub fn message<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, FrameFault> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameFault::Message),
    }
}

/// Writes into the one frame of `bytes`, which has no payload, that one of so many bytes follows it.
pub fn announce_payload(bytes: &mut [u8], length: usize) {
    bytes[4..HEAD].copy_from_slice(&(length as u32).to_le_bytes());
}

/// Takes the first frame from `bytes`, which hold whole ones of this process's own making.
pub fn split_first<M: DeserializeOwned>(bytes: &mut Bytes) -> Option<(M, Bytes)> {
    let head = bytes.get(..HEAD)?.try_into().ok()?;
    let lengths = lengths(head, Limits::ADMITTED).ok()?;
    let mut frame = bytes.split_to(HEAD + lengths.message + lengths.payload);
    let payload = frame.split_off(HEAD + lengths.message);
    let message = message(&frame[HEAD..]).ok()?;
    Some((message, payload))
}
