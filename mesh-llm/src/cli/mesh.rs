//! The commands to a daemon that runs.

use super::form::Form;
use crate::daemon::commands::mesh::{self, Command, Times};
use crate::daemon::settings::TokenSource;
use crate::manage::{Role, TokenRequest};
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use llama_engine::server::options::LogFormat;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// `mesh-llm status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// One line of JSON, as GET /api/status answers, instead of tables
    #[arg(long)]
    json: bool,

    /// Show it again after each change, until the daemon ends or Ctrl-C is pressed
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    form: Form,
}

impl Status {
    pub(super) fn run(self) -> ExitCode {
        let times = match self.watch {
            true => Times::EachChange,
            false => Times::Once,
        };
        let form = json(self.json);
        mesh::run(Command::Status { form, times }, self.form.telling()).into()
    }
}

/// `mesh-llm members`.
#[derive(Debug, Args)]
pub(super) struct Members {
    /// A line of JSON for each, instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    form: Form,
}

impl Members {
    pub(super) fn run(self) -> ExitCode {
        let form = json(self.json);
        mesh::run(Command::Members { form }, self.form.telling()).into()
    }
}

fn json(wanted: bool) -> Option<LogFormat> {
    wanted.then_some(LogFormat::Json)
}

/// `mesh-llm kick`.
#[derive(Debug, Args)]
pub(super) struct Kick {
    /// Its id as `mesh-llm members` shows it (6 digits or more, if no other begins with them), or its
    /// name
    #[arg(value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    node: String,

    /// Does not ask
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    form: Form,
}

impl Kick {
    pub(super) fn run(self) -> ExitCode {
        let command = Command::Kick {
            node: self.node,
            asks: !self.yes,
        };
        mesh::run(command, self.form.telling()).into()
    }
}

/// `mesh-llm load`.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// The model, in the words that --model takes; what is not on disk is downloaded
    #[arg(value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: String,

    #[command(flatten)]
    form: Form,
}

impl Load {
    pub(super) fn run(self) -> ExitCode {
        mesh::run(Command::Load { model: self.model }, self.form.telling()).into()
    }
}

/// `mesh-llm drop`.
#[derive(Debug, Args)]
pub(super) struct Drop {
    /// The model's name, as `mesh-llm status` shows it
    #[arg(value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: String,

    #[command(flatten)]
    form: Form,
}

impl Drop {
    pub(super) fn run(self) -> ExitCode {
        mesh::run(Command::Drop { model: self.model }, self.form.telling()).into()
    }
}

/// `mesh-llm stop`.
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    form: Form,
}

impl Stop {
    pub(super) fn run(self) -> ExitCode {
        mesh::run(Command::Stop, self.form.telling()).into()
    }
}

/// `mesh-llm token`.
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    action: Action,

    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a token by which another machine joins, and writes it to standard output
    Create(Create),
    /// Shows what a token allows
    Inspect {
        /// The token; `-` reads it from standard input, `@FILE` from a file, so that no other user of
        /// this machine sees it
        #[arg(value_name = "TOKEN")]
        token: TokenSource,
    },
    /// Lets nobody in by a token any more; who is in stays (`mesh-llm kick` puts out)
    Revoke {
        /// The id that `token create` told, or the token; `-` reads it from standard input, `@FILE`
        /// from a file
        #[arg(value_name = "ID|TOKEN")]
        token: TokenSource,
    },
}

/// `mesh-llm token create`.
#[derive(Debug, Args)]
struct Create {
    /// What those are for who join: a node serves and uses, and may let in and put out others; a client
    /// only uses; a worker only serves
    #[arg(long, value_name = "ROLE", value_parser = role(), default_value_t = Role::Node)]
    role: Role,

    /// How long it lets in, such as 7d, 12h, 30m, or never for no end; who is in by then stays
    #[arg(long, value_name = "TIME", default_value = "7d")]
    expires: Lifetime,

    /// How many machines it lets in [default: as many as come]
    #[arg(long, value_name = "N")]
    uses: Option<NonZeroU32>,

    /// Model that those who join may use or serve; repeat it for several [default: all]
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: Vec<String>,

    /// Draw it as a QR code, too, on standard error
    #[arg(long)]
    qr: bool,
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.iter().map(|role| role.word())).try_map(|word| word.parse::<Role>())
}

/// How long a token lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    /// For so long.
    For(Duration),
    /// As long as the mesh is.
    Forever,
}

/// Words that are no [`Lifetime`].
#[derive(Debug, thiserror::Error)]
#[error("write a time of at least a second such as 7d, 12h, 30m or \"1d 12h\", or never")]
struct BadLifetime;

impl FromStr for Lifetime {
    type Err = BadLifetime;

    fn from_str(words: &str) -> Result<Self, BadLifetime> {
        if words == "never" {
            return Ok(Self::Forever);
        }
        match humantime::parse_duration(words) {
            Ok(time) if time.as_secs() > 0 => Ok(Self::For(time)),
            _ => Err(BadLifetime),
        }
    }
}

impl Token {
    pub(super) fn run(self) -> ExitCode {
        mesh::run(self.action.command(), self.form.telling()).into()
    }
}

impl Action {
    fn command(self) -> Command {
        match self {
            Action::Create(create) => Command::CreateToken {
                draws: create.qr,
                wanted: create.wanted(),
            },
            Action::Inspect { token } => Command::InspectToken { token },
            Action::Revoke { token } => Command::RevokeToken { token },
        }
    }
}

impl Create {
    fn wanted(self) -> TokenRequest {
        TokenRequest {
            role: self.role,
            expires_seconds: match self.expires {
                Lifetime::For(time) => Some(time.as_secs()),
                Lifetime::Forever => None,
            },
            uses: self.uses.map(NonZeroU32::get),
            models: (!self.model.is_empty()).then_some(self.model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        token: Token,
    }

    fn read(words: &[&str]) -> Result<Command, clap::Error> {
        let program = Program::try_parse_from(["token"].iter().chain(words))?;
        Ok(program.token.action.command())
    }

    fn wanted(words: &[&str]) -> TokenRequest {
        match read(&[&["create"], words].concat()).unwrap() {
            Command::CreateToken { wanted, .. } => wanted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_said_is_a_node_for_a_week() {
        assert_eq!(
            wanted(&[]),
            TokenRequest {
                role: Role::Node,
                expires_seconds: Some(7 * 24 * 3600),
                uses: None,
                models: None,
            }
        );
    }

    #[test]
    fn everything_can_be_said() {
        let words = [
            "--role",
            "client",
            "--expires",
            "12h",
            "--uses",
            "3",
            "--model",
            "a",
            "--model",
            "b",
        ];
        assert_eq!(
            wanted(&words),
            TokenRequest {
                role: Role::Client,
                expires_seconds: Some(12 * 3600),
                uses: Some(3),
                models: Some(vec!["a".into(), "b".into()]),
            }
        );
        assert_eq!(wanted(&["--expires", "never"]).expires_seconds, None);
        assert_eq!(
            wanted(&["--expires", "1d 30m"]).expires_seconds,
            Some(24 * 3600 + 1800)
        );
    }

    #[test]
    fn what_makes_no_sense_is_told_with_the_remedy() {
        for (words, told) in [
            (["--expires", "0s"], "7d, 12h, 30m"),
            (["--expires", "soon"], "7d, 12h, 30m"),
            (["--role", "owner"], "node, client, worker"),
            (["--uses", "0"], "--uses"),
        ] {
            let error = read(&[&["create"], &words[..]].concat()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_token_need_not_be_in_the_arguments() {
        for (word, source) in [
            ("-", TokenSource::StandardInput),
            ("@t", TokenSource::File("t".into())),
        ] {
            assert_eq!(
                read(&["inspect", word]).unwrap(),
                Command::InspectToken {
                    token: source.clone()
                }
            );
            assert_eq!(
                read(&["revoke", word]).unwrap(),
                Command::RevokeToken { token: source }
            );
        }
    }
}
