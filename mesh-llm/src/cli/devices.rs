//! The command on devices.

use super::form::Form;
use crate::daemon::commands::{self, Command};
use clap::Args;
use std::process::ExitCode;

/// `mesh-llm devices`.
#[derive(Debug, Args)]
pub(super) struct Devices {
    #[command(flatten)]
    form: Form,
}

impl Devices {
    pub(super) fn run(self) -> ExitCode {
        commands::run(Command::Devices, self.form.telling()).into()
    }
}
