//! Model files of host and worker: proving that both have the same model without sending it, finding
//! it in the worker's directories, reading its tensors.
//!
//! [`Fingerprint`] says which model a file is (the section "Fingerprint" of DESIGN.md defines it),
//! [`Library`] finds the file of an [`Identity`] that came over the wire, [`WeightFile`] reads it, and
//! [`Memory`] keeps what was computed. This room knows nothing of llama.cpp, of sessions or of the
//! wire, and takes no path from anybody but this machine's user.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod digest;
mod error;
mod fingerprint;
mod folders;
mod library;
mod memory;
mod stamp;
#[cfg(test)]
mod tests;
mod weights;

pub use error::Error;
pub use fingerprint::{Fingerprint, Identity, Outline, ParseFingerprintError};
pub use library::{Library, Search, Tally};
pub use memory::Memory;
pub use weights::{Weight, WeightFile};
