//! The commands on models.

use super::form::Form;
use crate::daemon::commands::{self, Command};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// `mesh-llm download`.
#[derive(Debug, Args)]
pub(super) struct Download {
    /// Name in any spelling (qwen2.5 32b), org/repo, org/repo:Q4_K_M or org/repo/file.gguf of Hugging
    /// Face, or a URL
    #[arg(value_name = "NAME")]
    words: Vec<String>,

    /// Fetch a model that suits this machine: the largest that leaves half of its free memory
    #[arg(long, conflicts_with = "words")]
    recommended: bool,

    /// Fetch the small model, too, that guesses the words of this one ahead, which makes it faster
    #[arg(long)]
    draft: bool,

    #[command(flatten)]
    form: Form,
}

impl Download {
    pub(super) fn run(self) -> ExitCode {
        let command = match self.words.as_slice() {
            [] if self.recommended => Command::Recommended { draft: self.draft },
            [] => Command::Catalog,
            words => Command::Download {
                words: words.join(" "),
                draft: self.draft,
            },
        };
        commands::run(command, self.form.telling()).into()
    }
}

/// `mesh-llm models`.
#[derive(Debug, Args)]
pub(super) struct Models {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Removes a model from the store
    Rm {
        /// Its name, in any spelling
        #[arg(value_name = "NAME", required = true)]
        words: Vec<String>,

        /// Does not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Verifies the content of a model, or of all
    Check {
        /// Its name, in any spelling
        #[arg(value_name = "NAME")]
        words: Vec<String>,
    },
}

impl Models {
    pub(super) fn run(self) -> ExitCode {
        let command = match self.action {
            None => Command::List,
            Some(Action::Rm { words, yes }) => Command::Remove {
                words: words.join(" "),
                asks: !yes,
            },
            Some(Action::Check { words }) => Command::Check {
                words: (!words.is_empty()).then(|| words.join(" ")),
            },
        };
        commands::run(command, self.form.telling()).into()
    }
}
