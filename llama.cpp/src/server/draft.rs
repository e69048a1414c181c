//! Whether a draft model can guess for the model that is served, before either is loaded.

use super::eagle;
use super::load::{Refused, refused};
use super::options::{Draft, Options, Origin};
use crate::llama::{Mismatch, Model, Vocabulary};
use crate::status::Refusal;

/// Why a draft model is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// Its file.
    #[error("{}", .0.message)]
    File(Refused),
    /// It makes no text.
    #[error("{architecture} models continue no texts")]
    NoText {
        /// llama.cpp's name of the architecture.
        architecture: String,
    },
    /// What it computed for a wrong guess cannot be taken back.
    #[error("{architecture} models have a state from which wrong guesses cannot be taken back")]
    NoWayBack {
        /// llama.cpp's name of the architecture.
        architecture: String,
    },
    /// It speaks of other tokens.
    #[error(transparent)]
    Vocabulary(#[from] Mismatch),
    /// It guesses from hidden states of another model.
    #[error(transparent)]
    Eagle(#[from] eagle::Mismatch),
    /// It is for hidden states that are not here.
    #[error(
        "in a split the hidden states that it guesses from would have to come over the network before the next step"
    )]
    Far,
    /// There is no room for it.
    #[error("{0}")]
    Memory(String),
}

/// Whether `draft` can guess for `target`, of which the vocabulary is enough.
///
/// # Errors
/// Why not.
pub(super) fn check(draft: &Model, target: &Model) -> Result<(), Unfit> {
    let architecture = draft.architecture();
    if !draft.makes_text() {
        return Err(Unfit::NoText { architecture });
    }
    if draft.has_recurrent_state() {
        return Err(Unfit::NoWayBack { architecture });
    }
    Ok(Vocabulary::of(draft).guesses_for(&Vocabulary::of(target))?)
}

/// What to do without a draft model that is not used: nothing is served if the user asked for it, else all
/// goes on, as it does in a split, which others may have asked for.
///
/// # Errors
/// A refusal, where it was asked for.
pub(super) fn give_up(options: &Options, draft: &Draft, unfit: Unfit) -> Result<(), Refused> {
    let name = draft.path.file_name().unwrap_or_default().to_string_lossy();
    match draft.origin {
        Origin::Asked if unfit == Unfit::Far => {
            tracing::warn!("the draft {name} guesses nothing: {unfit}");
            Ok(())
        }
        Origin::Found => {
            let model = &options.model_name;
            tracing::warn!("the draft model {name} is not used for {model}: {unfit}");
            Ok(())
        }
        Origin::Asked => Err(match unfit {
            Unfit::File(refused) => refused,
            Unfit::Memory(_) => refused(Refusal::Memory, format!("{unfit}, or leave --draft out")),
            _ => refused(
                Refusal::Arguments,
                format!(
                    "--draft {} cannot guess for {}: {unfit}; name another one of the model's family, or leave it out",
                    draft.path.display(),
                    options.model_name
                ),
            ),
        }),
    }
}
