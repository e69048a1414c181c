//! Models: by what words they are asked for, where they are on this machine, and what to fetch for
//! those that are not.
//!
//! [`reference`], [`spelling`], [`catalog`], [`quantization`] and [`choice`] decide and are pure;
//! [`scan`], [`about`], [`need`] and [`inventory`] look at the disk; [`library`] puts them together, and
//! [`origin`] says where others get what is here. This room reads no more of a file than its header: whether it is a
//! sound model is the engine's to say.

pub mod about;
pub mod catalog;
pub mod check;
pub mod choice;
pub mod download;
mod error;
pub mod fetch;
mod file;
pub mod inventory;
pub mod library;
pub mod memory;
pub mod need;
pub mod origin;
pub mod places;
pub mod quantization;
pub mod reference;
pub mod removal;
pub mod scan;
mod spelling;
mod tiny;

pub use choice::{Choice, TINY};
pub use error::{Error, Names};
pub use library::{Library, Missing, Model, Resolved};

/// The embedded model, its file in the folder `own`.
///
/// # Errors
/// Where it is not there and cannot be written.
pub fn embedded(own: &std::path::Path) -> Result<Model, Error> {
    tiny::model(own, Choice::Named)
}

#[cfg(test)]
mod tests;
