//! Commands to the daemon that runs with this state directory: what it and its mesh do, who is in it, who
//! gets in, and that it is to end.

mod inspect;
mod members;
mod qr;
mod status;
mod stop;
mod token;

use super::Telling;
use super::ask::{AskError, ask};
use super::out::{Out, OutputError};
use crate::daemon::report::Reporter;
use crate::daemon::settings::{self, Settings, TokenError, TokenSource};
use crate::daemon::start::{self, Ending};
use crate::daemon::state::Home;
use crate::exit::Exit;
use crate::manage::{Client, ClientError, SOCKET, TokenRequest};
use llama_engine::server::options::LogFormat;
use std::io;
use std::path::{Path, PathBuf};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Shows what runs.
    Status {
        /// The form of it, where it is not that of everything.
        form: Option<LogFormat>,
        /// How often.
        times: Times,
    },
    /// Lists who may take part.
    Members {
        /// The form of it, where it is not that of everything.
        form: Option<LogFormat>,
    },
    /// Puts a member out.
    Kick {
        /// Its id, the beginning of it, or its name.
        node: String,
        /// Whether it is asked for before.
        asks: bool,
    },
    /// Makes a token.
    CreateToken {
        /// What it allows.
        wanted: TokenRequest,
        /// Whether it is drawn, too, for cameras.
        draws: bool,
    },
    /// Shows what a token allows.
    InspectToken {
        /// Where it is.
        token: TokenSource,
    },
    /// Lets nobody in by a token any more.
    RevokeToken {
        /// Where it, or its id, is.
        token: TokenSource,
    },
    /// Serves one more model.
    Load {
        /// Words for it.
        model: String,
    },
    /// Serves a model no more.
    Drop {
        /// Its name.
        model: String,
    },
    /// Ends the daemon.
    Stop,
}

/// How often something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Once.
    Once,
    /// Again after each change, until the daemon ends.
    EachChange,
}

/// Does it.
pub fn run(command: Command, telling: Telling) -> Exit {
    start::run(telling.layer(), None, |settings, reporter| {
        perform(command, settings, reporter)
    })
}

fn perform(command: Command, settings: &Settings, reporter: &Reporter) -> Result<Exit, Error> {
    let out = |form: Option<LogFormat>| Out {
        format: form.unwrap_or(settings.log),
    };
    let daemon = || Daemon::find(&settings.home);
    match command {
        Command::Status { form, times } => status::show(&daemon()?.client, times, out(form), reporter)?,
        Command::Members { form } => members::list(&daemon()?.client, out(form))?,
        Command::Kick { node, asks } => {
            let daemon = daemon()?;
            if asks && !ask(&format!("put {node} out of the mesh, until it has a new token?"))? {
                reporter.note(&format!("{node} stays"));
            } else {
                let member = daemon.client.kick(&node)?;
                reporter.note(&format!("{} is out of the mesh", members::called(&member)));
            }
        }
        Command::CreateToken { wanted, draws } => {
            let created = daemon()?.client.create_token(&wanted)?;
            token::show(&created, draws, out(Some(LogFormat::Text)), reporter)?;
        }
        Command::InspectToken { token } => inspect::inspect(&token.read()?, out(None))?,
        Command::RevokeToken { token } => {
            let token = token.read()?;
            let revoked = daemon()?.client.revoke_token(&token.0)?;
            reporter.note(&format!("token {} lets nobody in any more", revoked.id));
        }
        Command::Load { model } => {
            let loaded = daemon()?.client.load(&model)?;
            reporter.note(&format!(
                "{} is being loaded: `mesh-llm status` shows how far it is",
                loaded.name
            ));
        }
        Command::Drop { model } => {
            let dropped = daemon()?.client.drop_model(&model)?;
            reporter.note(&format!("{} is served here no more", dropped.name));
        }
        Command::Stop => stop::stop(&daemon()?, reporter)?,
    }
    Ok(Exit::DONE)
}

/// A daemon that runs.
struct Daemon {
    /// Its folder, which is there as long as it is.
    folder: PathBuf,
    /// A way to ask it.
    client: Client,
}

impl Daemon {
    /// The one with this state directory.
    fn find(home: &Path) -> Result<Daemon, Error> {
        let mut running = Home::running(home);
        let folder = match running.len() {
            0 => None,
            1 => running.pop(),
            _ => return Err(Error::Several(running)),
        };
        let folder = folder.ok_or_else(|| Error::NoDaemon(home.to_owned()))?;
        let client = Client::new(&folder.join(SOCKET)).map_err(Error::Threads)?;
        Ok(Daemon { folder, client })
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error("no mesh-llm runs with the state directory {}: start it, or set MESH_LLM_HOME to the one of a mesh-llm that runs", .0.display())]
    NoDaemon(PathBuf),
    #[error("several mesh-llm run with one state directory ({}): end all but one, and give each a MESH_LLM_HOME of its own", listed(.0))]
    Several(Vec<PathBuf>),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    NotOne(#[from] crate::mesh::token::TokenError),
    #[error("preparing to ask the daemon failed: {0}; try again")]
    Threads(io::Error),
}

fn listed(folders: &[PathBuf]) -> String {
    let folders: Vec<_> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    folders.join(", ")
}

impl Ending for Error {
    fn exit(&self) -> Exit {
        match self {
            Error::Settings(error) => error.exit(),
            Error::NoDaemon(_) | Error::Several(_) => Exit::UNAVAILABLE,
            Error::Client(ClientError::Refused(_)) => Exit::REFUSED,
            Error::Client(_) => Exit::UNAVAILABLE,
            Error::Token(_) => Exit::FILE,
            Error::Ask(error) => error.exit(),
            Error::NotOne(_) => Exit::CONFIGURATION,
            Error::Output(_) | Error::Threads(_) => Exit::UNEXPECTED,
        }
    }
}

/// Words of another machine, so that they do nothing to a terminal.
fn plain(words: &str) -> String {
    words.replace(char::is_control, "\u{fffd}")
}

/// The beginning of an id, which people tell members apart by.
fn short(id: &str) -> String {
    /// Digits that are shown.
    const SHORT: usize = 10;
    plain(id.get(..SHORT).unwrap_or(id))
}

/// A time in seconds since 1970, for people; none: it is beyond all calendars.
fn date(seconds: u64) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    let time =
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(Some(seconds).filter(|s| *s < YEAR_10000)?);
    let written = humantime::format_rfc3339_seconds(time).to_string();
    Some(written.replace('T', " ").replace('Z', " UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_found_by_its_state_directory() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        let find = || Daemon::find(&home).map(|daemon| daemon.folder);
        let error = find().unwrap_err();
        assert_eq!(error.exit(), Exit::UNAVAILABLE);
        let told = error.to_string();
        assert!(
            told.contains(&home.display().to_string()) && told.contains("MESH_LLM_HOME"),
            "{told}"
        );
        let opened = Home::open(&home).unwrap();
        let first = opened.run_folder().unwrap();
        assert_eq!(find().unwrap(), first.path());
        let second = opened.run_folder().unwrap();
        let told = find().unwrap_err().to_string();
        for folder in [first.path(), second.path()] {
            assert!(told.contains(&folder.display().to_string()), "{told}");
        }
        assert!(told.contains("MESH_LLM_HOME of its own"), "{told}");
    }

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(plain("Käthes Rechner"), "Käthes Rechner");
    }

    #[test]
    fn a_date_is_for_people() {
        assert_eq!(date(0).as_deref(), Some("1970-01-01 00:00:00 UTC"));
        assert_eq!(date(253_402_300_799).as_deref(), Some("9999-12-31 23:59:59 UTC"));
        assert_eq!(date(u64::MAX), None);
    }
}
