//! Asks before something is done that is not easily undone.

use crate::exit::Exit;
use std::io::{self, BufRead, IsTerminal, Write};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// No person is there.
    #[error("there is nobody to ask (\"{question}\"): add --yes")]
    Nobody {
        /// What would have been asked.
        question: String,
    },
    /// The terminal cannot be used.
    #[error("asking failed: {0}; add --yes")]
    Terminal(#[from] io::Error),
}

impl AskError {
    /// How the process ends for this.
    pub(super) fn exit(&self) -> Exit {
        match self {
            AskError::Nobody { .. } => Exit::CONFIGURATION,
            AskError::Terminal(_) => Exit::UNEXPECTED,
        }
    }
}

/// Whether the person at the terminal says yes.
pub(super) fn ask(question: &str) -> Result<bool, AskError> {
    if !io::stdin().is_terminal() {
        return Err(AskError::Nobody {
            question: question.to_owned(),
        });
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
