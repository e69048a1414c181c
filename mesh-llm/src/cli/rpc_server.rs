//! The flags of `rpc-server`.

use super::flags::log_format;
use crate::daemon::rpc_server::{self, DEFAULT_LISTEN, Offer};
use crate::daemon::settings::{Devices, Gigabytes, Layer, SecretSource};
use clap::{ArgAction, Args, Parser};
use llama_engine::rpc::worker::Most;
use llama_engine::server::options::{LogFormat, STEP_DELAY_VARIABLE};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Offers this machine's devices to a mesh-llm elsewhere, which splits a model over machines.
#[derive(Debug, Parser)]
#[command(name = "rpc-server", version)]
pub(super) struct Program {
    #[command(flatten)]
    pub(super) arguments: Arguments,
}

/// What is offered. Once hosts can come, `listening at ADDRESS:PORT` is written to standard output.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// Where hosts come to; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = DEFAULT_LISTEN, help = LISTEN)]
    listen: SocketAddr,

    /// File with the secret that hosts must know; MESH_LLM_RPC_SECRET may hold the secret itself
    /// [default: rpc-secret in MESH_LLM_HOME, which is made if it is not there]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Device to offer, such as CUDA0; repeat it, or put commas between several [default: every GPU,
    /// else the CPU]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    device: Vec<String>,

    /// Gigabytes of this machine's memory that all hosts take together at most, such as 7.5; a GPU's own are
    /// not counted [default: what is free]
    #[arg(long, value_name = "GB")]
    max_memory: Option<Gigabytes>,

    /// Gigabytes of GPUs' own memory that all hosts take together at most, of all GPUs [default: what is free]
    #[arg(long, value_name = "GB")]
    max_vram: Option<Gigabytes>,

    /// Gigabytes of everything together at most
    #[arg(long, hide = true, value_name = "GB")]
    max_together: Option<Gigabytes>,

    /// Say what this machine computes with, as JSON, and end: `mesh-llm devices` shows it to people
    #[arg(long)]
    list_devices: bool,

    /// Folder with models; repeat it for several. A host's model is looked for by its content, not by
    /// its name [default: ~/.models (MESH_LLM_MODELS) and where other programs keep models]
    #[arg(long, value_name = "DIR")]
    model_dir: Vec<PathBuf>,

    /// Threads that compute on the CPU [default: one for each core]; fewer leave the machine usable
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroU32>,

    /// Milliseconds that a step takes longer than it would, so that a small model stands for a large one in
    /// benches
    #[arg(long, hide = true, env = STEP_DELAY_VARIABLE, value_name = "MS", default_value_t)]
    step_delay: u32,

    /// Form of everything on standard error [default: text]; json is one object a line, for
    /// programs
    #[arg(long, value_name = "FORMAT", value_parser = log_format())]
    log_format: Option<LogFormat>,

    /// Says more: -v for what happens, -vv for everything
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

const LISTEN: &str = "Where hosts come to; port 0 takes any free one. 0.0.0.0:9338 lets every machine in that \
    reaches this one and knows the secret; nothing is encrypted";

const EXAMPLE: &str = "\
Example, of a machine with the address 10.0.0.2:
  mesh-llm rpc-server --listen 10.0.0.2:9338
and where the model is served, with a copy of the file rpc-secret:
  mesh-llm --model Qwen3-8B --rpc 10.0.0.2:9338";

impl Arguments {
    /// What the daemon knows as well, and what it does not.
    fn into_layer(self) -> (Layer, Offer) {
        let layer = Layer {
            rpc_secret: self.secret_file.map(SecretSource::File),
            device: (!self.device.is_empty()).then_some(Devices(self.device)),
            threads: self.threads,
            log_format: self.log_format,
            verbose: (self.verbose > 0).then_some(self.verbose),
            ..Layer::default()
        };
        let offer = Offer {
            listen: self.listen,
            most: Most {
                memory: self.max_memory.map(|most| most.0),
                vram: self.max_vram.map(|most| most.0),
                together: self.max_together.map(|most| most.0),
            },
            model_dirs: self.model_dir,
            step_delay: Duration::from_millis(self.step_delay.into()),
        };
        (layer, offer)
    }
}

/// Runs the worker in this process.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    if arguments.list_devices {
        return rpc_server::list_devices(&arguments.device, arguments.threads).into();
    }
    let (layer, offer) = arguments.into_layer();
    rpc_server::run(layer, offer).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> (Layer, Offer) {
        let words = ["rpc-server"].iter().chain(words);
        Program::try_parse_from(words).unwrap().arguments.into_layer()
    }

    #[test]
    fn nothing_said_is_for_this_machine_alone() {
        let (layer, offer) = read(&[]);
        assert_eq!(layer, Layer::default());
        assert_eq!(offer.listen, DEFAULT_LISTEN);
        assert_eq!((offer.most, offer.model_dirs), (Most::default(), Vec::new()));
        assert!(LISTEN.contains(&format!(":{}", DEFAULT_LISTEN.port())));
    }

    #[test]
    fn everything_can_be_said() {
        let (layer, offer) = read(&[
            "--listen",
            "[::]:1",
            "--secret-file",
            "s",
            "--device",
            "CUDA0,CUDA1",
            "--device",
            "CPU",
            "--max-memory",
            "7.5",
            "--max-vram",
            "20",
            "--max-together",
            "25",
            "--model-dir",
            "a",
            "--model-dir",
            "b",
            "--threads",
            "3",
            "-v",
        ]);
        assert_eq!(offer.listen, "[::]:1".parse().unwrap());
        let most = Most {
            memory: Some(7_500_000_000),
            vram: Some(20_000_000_000),
            together: Some(25_000_000_000),
        };
        assert_eq!(offer.most, most);
        assert_eq!(offer.model_dirs, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(layer.rpc_secret, Some(SecretSource::File("s".into())));
        assert_eq!(layer.device.unwrap().0, ["CUDA0", "CUDA1", "CPU"]);
        assert_eq!((layer.threads, layer.verbose), (NonZeroU32::new(3), Some(1)));
    }
}
