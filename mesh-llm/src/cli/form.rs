//! What every command takes.

use super::flags::log_format;
use crate::daemon::commands::Telling;
use clap::{ArgAction, Args};
use llama_engine::server::options::LogFormat;

/// How a command tells what it does.
#[derive(Debug, Args)]
pub(super) struct Form {
    /// Form of what is told [default: text]; json is one object a line, for programs
    #[arg(long, value_name = "FORMAT", value_parser = log_format(), global = true)]
    log_format: Option<LogFormat>,

    /// Says more: -v for what happens, -vv for everything
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
}

impl Form {
    pub(super) fn telling(&self) -> Telling {
        Telling {
            format: self.log_format,
            verbose: self.verbose,
        }
    }
}
