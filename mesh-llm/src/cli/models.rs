//! The commands on models.

use super::flags::log_format;
use crate::daemon::commands::{self, Command, Telling};
use clap::{ArgAction, Args, Subcommand};
use llama_engine::server::options::LogFormat;
use std::process::ExitCode;

/// What both commands take.
#[derive(Debug, Args)]
struct Form {
    /// Form of what is told [default: text]; json is one object a line, for programs
    #[arg(long, value_name = "FORMAT", value_parser = log_format(), global = true)]
    log_format: Option<LogFormat>,

    /// Says more: -v for what happens, -vv for everything
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
}

impl Form {
    fn run(self, command: Command) -> ExitCode {
        let telling = Telling {
            format: self.log_format,
            verbose: self.verbose,
        };
        commands::run(command, telling).into()
    }
}

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
        self.form.run(command)
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
        self.form.run(command)
    }
}
