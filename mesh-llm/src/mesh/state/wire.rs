//! A state in bytes: postcard, field after field.
//!
//! | Field                   | As                                          |
//! |-------------------------|---------------------------------------------|
//! | node                    | 32 bytes                                    |
//! | boot, version           | varint each                                 |
//! | name, program           | length and UTF-8 each                       |
//! | role                    | varint: 0 client, 1 worker, 2 node          |
//! | addresses               | records                                     |
//! | memory: total, offered  | varint each; *may be missing from here on*  |
//! | devices, models         | records each                                |
//! | split                   | one record, or none                         |
//! | wants, groups           | records each                                |
//! | round trips             | records                                     |
//! | models on disk          | records                                     |
//! | GPUs: offered, bandwidth | varint each                                |
//!
//! Records are their count and, for each, its length and its bytes. Releases that differ understand each other by
//! three rules. A new field goes to the end: an older release leaves unread what comes after what it knows, and a
//! newer one takes the default for what isn't there. A new field of a record goes to its end likewise. A record
//! of a kind that an older release doesn't know (an address, a stage) is one that it does without.

use super::{
    MAX_ADDRESSES, MAX_DEVICES, MAX_GROUPS, MAX_MODELS, MAX_ON_DISK, MAX_ROUND_TRIPS, MAX_STATE_BYTES,
    MAX_WANTS, groups,
};
use super::{NodeState, Rejected, Stage, Stamp, is_text};
use crate::mesh::id::NodeId;
use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::Serialize;

/// The bytes of a state.
pub(super) fn encode(state: &NodeState) -> Vec<u8> {
    bytes_of(&(
        state.node,
        state.boot,
        state.version,
        &state.name,
        &state.program,
        state.role,
        records(&state.addresses),
        state.memory,
        records(&state.devices),
        records(&state.models),
        records(state.split.as_slice()),
        records(&state.wants),
        records(&state.groups),
        records(&state.round_trips),
        records(&state.on_disk),
        state.gpus,
    ))
}

/// The state in `body`.
pub(super) fn decode(body: &[u8]) -> Result<NodeState, Rejected> {
    let mut reader = Reader::of(body)?;
    let state = NodeState {
        node: reader.field()?,
        boot: reader.field()?,
        version: reader.field()?,
        name: reader.field()?,
        program: reader.field()?,
        role: reader.field()?,
        addresses: reader.records("addresses", MAX_ADDRESSES)?,
        memory: reader.later()?,
        devices: reader.records("devices", MAX_DEVICES)?,
        models: reader.records("models", MAX_MODELS)?,
        split: reader.records("parts in splits", 1)?.pop(),
        wants: reader.records("wanted models", MAX_WANTS)?,
        groups: reader.records("groups", MAX_GROUPS)?,
        round_trips: reader.records("round trips", MAX_ROUND_TRIPS)?,
        on_disk: reader.records("models on disk", MAX_ON_DISK)?,
        gpus: reader.later()?,
    };
    if !texts(&state).all(is_text) {
        return Err(Rejected::Text);
    }
    if !state.models.iter().all(|model| is_percent(model.stage)) {
        return Err(Rejected::Malformed);
    }
    Ok(state)
}

/// What a state begins with.
pub(super) fn decode_claim(body: &[u8]) -> Result<(NodeId, Stamp), Rejected> {
    let mut reader = Reader::of(body)?;
    Ok((reader.field()?, reader.field()?))
}

fn bytes_of(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("numbers, texts and lists of known length always have bytes")
}

fn records(values: &[impl Serialize]) -> Vec<Vec<u8>> {
    values.iter().map(|value| bytes_of(value)).collect()
}

fn texts(state: &NodeState) -> impl Iterator<Item = &str> {
    let own = [state.name.as_str(), state.program.as_str()];
    let addresses = state.addresses.iter().filter_map(|address| address.text());
    let devices = state.devices.iter().map(|device| device.name.as_str());
    let models = state.models.iter().map(|model| model.name.as_str());
    let on_disk = state.on_disk.iter().map(|model| model.name.as_str());
    own.into_iter()
        .chain(addresses)
        .chain(devices)
        .chain(models)
        .chain(on_disk)
        .chain(groups::texts(state))
}

fn is_percent(stage: Stage) -> bool {
    match stage {
        Stage::Downloading {
            percent: Some(percent),
        }
        | Stage::Loading { percent } => percent <= 100,
        Stage::Downloading { percent: None } | Stage::Ready | Stage::Failed | Stage::Waiting => true,
    }
}

/// What of a state's bytes was not read yet. There are never more than [`MAX_STATE_BYTES`], which bounds what is
/// taken for texts; lists are bounded by their counts.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn of(body: &'a [u8]) -> Result<Self, Rejected> {
        match body.len() <= MAX_STATE_BYTES {
            true => Ok(Self(body)),
            false => Err(Rejected::TooLong { bytes: body.len() }),
        }
    }

    /// A field that every release has.
    fn field<T: Deserialize<'a>>(&mut self) -> Result<T, Rejected> {
        let (value, rest) = postcard::take_from_bytes(self.0).map_err(|_| Rejected::Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    /// A field that a release may lack.
    fn later<T: Deserialize<'a> + Default>(&mut self) -> Result<T, Rejected> {
        match self.0.is_empty() {
            true => Ok(T::default()),
            false => self.field(),
        }
    }

    /// A list of what each has its own length; what this release can't read of it is left out.
    fn records<T: DeserializeOwned>(
        &mut self,
        things: &'static str,
        limit: usize,
    ) -> Result<Vec<T>, Rejected> {
        let count: u32 = self.later()?;
        if count as usize > limit {
            return Err(Rejected::TooMany { things, count, limit });
        }
        let mut known = Vec::new();
        for _ in 0..count {
            let record: &[u8] = self.field()?;
            known.extend(postcard::take_from_bytes(record).map(|(value, _later_fields)| value));
        }
        Ok(known)
    }
}
