//! Exit codes by kind of failure, after BSD's `sysexits.h`; DESIGN.md lists them.

use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// What was asked for is done.
    pub const DONE: Exit = Exit(0);
    /// A failure that nobody foresaw.
    pub const UNEXPECTED: Exit = Exit(1);
    /// A variable or a configuration file makes no sense; flags end with clap's 2.
    pub const CONFIGURATION: Exit = Exit(64);
    /// A file is not a model.
    pub const MODEL: Exit = Exit(65);
    /// A file is missing or unreadable.
    pub const FILE: Exit = Exit(66);
    /// A port or a socket is not available.
    pub const UNAVAILABLE: Exit = Exit(69);
    /// The engine crashed again and again.
    pub const CRASHED: Exit = Exit(70);
    /// The daemon that was asked does not do it.
    pub const REFUSED: Exit = Exit(77);
    /// Somebody stopped it; shells say so by this number.
    pub const STOPPED: Exit = Exit(130);
    /// The state directory cannot be used.
    pub const STATE: Exit = Exit(73);
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.0)
    }
}
