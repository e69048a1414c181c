//! How every command of this program begins and ends: settings, console, and a word on what went wrong.

use super::console::Console;
use super::report::Reporter;
use super::settings::{self, Layer, Settings, UserFolders};
use crate::exit::Exit;
use std::fmt;
use std::path::PathBuf;

/// An error that says how the process ends for it.
pub(super) trait Ending: fmt::Display + From<settings::Error> {
    /// How.
    fn exit(&self) -> Exit;
}

/// Does `work` with the settings of this start and a reporter to tell of it, and tells what went wrong.
///
/// `flags` are what the command line says, `config` the configuration file that it names.
pub(super) fn run<E: Ending>(
    flags: Layer,
    config: Option<PathBuf>,
    work: impl FnOnce(&Settings, &Reporter) -> Result<Exit, E>,
) -> Exit {
    let log = flags.log_format.unwrap_or_default();
    let settings = Settings::load(
        flags,
        config,
        &|name| std::env::var_os(name),
        &UserFolders::current(),
    );
    let (log, verbose) = settings
        .as_ref()
        .map_or((log, 0), |settings| (settings.log, settings.verbose));
    // Without a thread for standard error there is no way to say so, nor to do anything.
    let Ok(console) = Console::start() else {
        return Exit::UNEXPECTED;
    };
    let reporter = Reporter::start(console, log, verbose);
    let done = settings
        .map_err(E::from)
        .and_then(|settings| work(&settings, &reporter));
    let exit = done.unwrap_or_else(|error| {
        // Makes room for the line that must not be lost.
        reporter.flush();
        reporter.error(&error.to_string(), error.exit());
        error.exit()
    });
    reporter.flush();
    exit
}
