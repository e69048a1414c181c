//! The command line. No other room knows `clap`.

mod devices;
mod flags;
mod form;
#[cfg(feature = "engine")]
mod llama_server;
mod mesh;
mod models;
#[cfg(feature = "engine")]
mod rpc_server;

use crate::daemon;
use clap::{Parser, Subcommand};
use flags::Flags;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Serves a language model on this machine, through an OpenAI-compatible API at
/// http://localhost:9337/v1.
#[derive(Debug, Parser)]
#[command(name = "mesh-llm", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    flags: Flags,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves one model to a daemon: the process that mesh-llm starts for it
    #[cfg(feature = "engine")]
    LlamaServer(llama_server::Arguments),
    /// Offers this machine's devices to a mesh-llm elsewhere, which splits a model over machines
    #[cfg(feature = "engine")]
    RpcServer(rpc_server::Arguments),
    /// Lists what this machine computes with: its GPUs and its processor, their memory and how fast they read it
    Devices(devices::Devices),
    /// Fetches a model into ~/.models; without a name, lists those that are known by name
    Download(models::Download),
    /// Lists the models on this machine, checks or removes them
    Models(models::Models),
    /// Shows what the mesh-llm that runs here does: machines, models, clients
    Status(mesh::Status),
    /// Lists who may take part in the mesh
    Members(mesh::Members),
    /// Puts a machine out of the mesh
    Kick(mesh::Kick),
    /// Makes, shows and revokes the tokens by which machines join
    Token(mesh::Token),
    /// Serves one more model, while mesh-llm runs
    Load(mesh::Load),
    /// Serves a model no more, once its running requests are answered
    Drop(mesh::Drop),
    /// Ends the mesh-llm that runs here, once running requests are answered
    Stop(mesh::Stop),
}

const EXAMPLES: &str = "\
Every flag can also be given as a variable of the environment (--ctx-size as MESH_LLM_CTX_SIZE) or
as a line of the configuration file (ctx-size = 32768). A flag counts more than a variable, a
variable more than the file. Files are kept in MESH_LLM_HOME, by default
~/.local/state/mesh-llm; models are looked for in MESH_LLM_MODELS, by default ~/.models.

Examples:
  mesh-llm                                       the last model again, or the largest that fits
  mesh-llm --model Qwen3-8B                      a model by name, downloaded if it is not there
  mesh-llm --model tiny                          the embedded model, to try the API with
  mesh-llm --model ~/models/Qwen3-8B-Q4_K_M.gguf --ctx-size 32768 --parallel 4
  mesh-llm --model Qwen3-32B --draft Qwen3-0.6B  faster, with a small model that guesses ahead
  mesh-llm --model Qwen3-32B --rpc 10.0.0.2:9338 split with a machine that runs mesh-llm rpc-server
  mesh-llm token create                          a token for another machine to join by
  mesh-llm --join -                              join a mesh; paste the token, or pipe it
  mesh-llm --client --join @token.txt            use a mesh without serving anything here";

/// Does what the arguments say, the first of which is the name that the program was started by.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let name = arguments.first().and_then(|path| Path::new(path).file_stem());
    #[cfg(feature = "engine")]
    if name == Some("llama-server".as_ref()) {
        return match parse::<llama_server::Program>(arguments) {
            Ok(program) => llama_server::run(program.arguments),
            Err(code) => code,
        };
    }
    #[cfg(feature = "engine")]
    if name == Some("rpc-server".as_ref()) {
        return match parse::<rpc_server::Program>(arguments) {
            Ok(program) => rpc_server::run(program.arguments),
            Err(code) => code,
        };
    }
    // Without an engine inside, the name changes nothing.
    let _ = name;
    let cli = match parse::<Cli>(arguments) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        #[cfg(feature = "engine")]
        Some(Command::LlamaServer(arguments)) => llama_server::run(arguments),
        #[cfg(feature = "engine")]
        Some(Command::RpcServer(arguments)) => rpc_server::run(arguments),
        Some(Command::Devices(devices)) => devices.run(),
        Some(Command::Download(download)) => download.run(),
        Some(Command::Models(models)) => models.run(),
        Some(Command::Status(status)) => status.run(),
        Some(Command::Members(members)) => members.run(),
        Some(Command::Kick(kick)) => kick.run(),
        Some(Command::Token(token)) => token.run(),
        Some(Command::Load(load)) => load.run(),
        Some(Command::Drop(drop)) => drop.run(),
        Some(Command::Stop(stop)) => stop.run(),
        None => {
            let (config, layer) = cli.flags.into_layer();
            daemon::run(layer, config).into()
        }
    }
}

/// Reads the arguments, or tells what is wrong with them and how the process ends.
fn parse<P: Parser>(arguments: Vec<OsString>) -> Result<P, ExitCode> {
    P::try_parse_from(arguments).map_err(|error| {
        // What fails here is writing to a stream that nobody reads.
        let _ = if error.use_stderr() {
            writeln!(io::stderr(), "mesh-llm: {}", one_line(&error.to_string()))
        } else {
            // The help, or the version.
            error.print()
        };
        ExitCode::from(error.exit_code().try_into().unwrap_or(u8::MAX))
    })
}

/// An error of `clap` without its heading and usage.
fn one_line(error: &str) -> String {
    let told = error
        .split("\nUsage:")
        .next()
        .unwrap_or(error)
        .split("\nFor more information")
        .next()
        .unwrap_or(error);
    let words: Vec<_> = told.trim_start_matches("error:").split_whitespace().collect();
    format!("{}; --help lists what is possible", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::{Layer, Settings, UserFolders};
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_mesh_has_a_heading_of_its_own_in_the_help() {
        let help = Cli::command().render_long_help().to_string();
        let (before, mesh) = help.split_once("\nMesh:\n").unwrap();
        for flag in ["--join <TOKEN>", "--no-console"] {
            assert!(mesh.contains(flag) && !before.contains(flag), "{help}");
        }
        for flag in ["--model <MODEL>", "--config <FILE>", "--verbose"] {
            assert!(before.contains(flag) && !mesh.contains(flag), "{help}");
        }
    }

    #[test]
    fn a_bad_flag_is_told_in_one_line() {
        let told = |arguments: &[&str]| {
            let error = Cli::try_parse_from(["mesh-llm"].iter().chain(arguments)).unwrap_err();
            one_line(&error.to_string())
        };
        assert_eq!(
            told(&["--flash-attn", "maybe"]),
            "invalid value 'maybe' for '--flash-attn <WHEN>' [possible values: auto, on, off]; --help lists what is possible"
        );
        let unknown = told(&["--modle", "x"]);
        assert!(
            unknown.starts_with("unexpected argument '--modle' found") && unknown.contains("'--model'"),
            "{unknown}"
        );
        assert!(told(&["--port", "99999"]).contains("99999 is not in 0..=65535"));
        assert!(told(&["--ctx-size", "0"]).contains("--ctx-size"));
    }

    /// The flags that a variable or a file can replace.
    fn replaceable_flags() -> Vec<String> {
        let command = Cli::command();
        let names = command.get_arguments().filter_map(|argument| argument.get_long());
        names
            .filter(|name| !["help", "version", "config"].contains(name))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_flag_is_a_key_of_the_file() {
        for flag in replaceable_flags() {
            let error = toml::from_str::<Layer>(&format!("{flag} = {{}}")).unwrap_err();
            assert!(!error.message().contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn every_flag_is_a_variable() {
        let load = |name: &str, value: &str| {
            let variable = |asked: &str| (asked == name).then(|| value.into());
            let user = UserFolders {
                home: None,
                state: Some("/nowhere".into()),
            };
            Settings::load(Layer::default(), None, &variable, &user)
        };
        let default = load("", "").unwrap();
        for flag in replaceable_flags() {
            let name = format!("MESH_LLM_{}", flag.replace('-', "_").to_uppercase());
            // One of these says something to every one of them.
            let heard = [
                "1",
                "q8_0",
                "on",
                "off",
                "json",
                "localhost:1",
                "https://r.example",
            ]
            .iter()
            .any(|value| load(&name, value).is_ok_and(|settings| settings != default));
            assert!(heard, "{name}");
        }
    }
}
