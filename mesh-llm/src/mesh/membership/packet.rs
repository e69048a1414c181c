//! What is in a packet of `foca`.
//!
//! `foca` believes all that a packet says. So each packet is read before, what may not be believed is taken out, and
//! `foca` gets what is left. A packet is a header, then, unless it is an announcement or an obituary, a count (two bytes,
//! the high one first) of updates and these; header and updates are postcard.

use super::identity::Claim;
use foca::{Codec, Header, Message, PostcardCodec};

/// Bytes of a packet. An unreliable datagram of QUIC has room for them on any path.
pub const MAX_PACKET_BYTES: usize = 1_100;

/// A packet that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub header: Header<Claim>,
    /// What it says of members.
    pub updates: Vec<foca::Member<Claim>>,
}

impl Packet {
    /// The packet in `bytes`, if they are nothing but one of those that we send.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_PACKET_BYTES {
            return None;
        }
        let mut rest = bytes;
        let header: Header<Claim> = PostcardCodec.decode_header(&mut rest).ok()?;
        let mut updates = Vec::new();
        if has_updates(&header.message)? {
            let (count, members) = rest.split_first_chunk()?;
            rest = members;
            // What each takes was sent: this ends with the packet, whatever it claims.
            for _ in 0..u16::from_be_bytes(*count) {
                updates.push(PostcardCodec.decode_member(&mut rest).ok()?);
            }
        }
        rest.is_empty().then_some(Self { header, updates })
    }

    /// Its bytes.
    pub fn write(&self) -> Vec<u8> {
        const FITS: &str = "what was read from a packet fits into one";
        let mut bytes = Vec::with_capacity(MAX_PACKET_BYTES);
        PostcardCodec.encode_header(&self.header, &mut bytes).expect(FITS);
        if has_updates(&self.header.message) == Some(true) {
            let count = u16::try_from(self.updates.len()).expect(FITS);
            bytes.extend(count.to_be_bytes());
            for update in &self.updates {
                PostcardCodec.encode_member(update, &mut bytes).expect(FITS);
            }
        }
        bytes
    }

    /// Whom else it is about, sender and receiver aside: one that the receiver would send something to.
    pub fn third(&self) -> Option<Claim> {
        match self.header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => Some(origin),
            _ => None,
        }
    }
}

/// Whether such a message carries updates; none if it is one that we don't have.
fn has_updates(message: &Message<Claim>) -> Option<bool> {
    match message {
        Message::Broadcast => None,
        Message::Announce | Message::TurnUndead => Some(false),
        _ => Some(true),
    }
}
