//! The flags of `llama-server`, which the daemon writes with `engine::arguments`.

use super::flags::{cache_type, flash_attention, log_format, speculation};
use crate::log::{self, Style};
use clap::{ArgAction, Args, Parser};
use llama_engine::rpc::door::{DOOR_VARIABLE, Door};
use llama_engine::server::options::{
    CacheType, Count, Draft, FlashAttention, Listen, LogFormat, MOST_WINDOW, Options, Origin, Probability,
    RPC_SECRET_VARIABLE, SECRET_VARIABLE, STEP_DELAY_VARIABLE, SlotSave, Speculation, SpeculationMode,
};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Serves one model to a mesh-llm daemon, over a socket.
#[derive(Debug, Parser)]
#[command(name = "llama-server", version)]
pub(super) struct Program {
    #[command(flatten)]
    pub(super) arguments: Arguments,
}

/// What a llama-server is told. It reports on its standard output, as DESIGN.md says, and ends
/// when its standard input closes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to answer requests: unix:PATH, or tcp:ADDRESS:PORT with a secret in
    /// MESH_LLM_ENGINE_SECRET
    #[arg(long, value_name = "ADDRESS")]
    listen: Listen,

    /// GGUF file, of a split model its first part
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    /// The model's id at the API
    #[arg(long, value_name = "NAME")]
    model_name: String,

    /// Tokens of context that all slots share [default: as many as fit]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    ctx_size: Option<u32>,

    /// Requests served at once [default: as many as fit]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    parallel: Option<u32>,

    /// Device to compute on; may be repeated [default: every GPU, else the CPU]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    device: Vec<String>,

    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    threads: Option<u32>,

    /// Layers on GPUs [default: as many as fit]
    #[arg(long, value_name = "N")]
    gpu_layers: Option<u32>,

    /// Bytes of this machine's memory that the model takes at most [default: what is free]
    #[arg(long, value_name = "BYTES")]
    max_memory: Option<u64>,

    /// Bytes of GPUs' own memory that it takes at most, of all of them together [default: what is free]
    #[arg(long, value_name = "BYTES")]
    max_vram: Option<u64>,

    /// Numbers in which keys are cached
    #[arg(long, value_name = "TYPE", value_parser = cache_type(), default_value_t)]
    cache_type_k: CacheType,

    /// Numbers in which values are cached
    #[arg(long, value_name = "TYPE", value_parser = cache_type(), default_value_t)]
    cache_type_v: CacheType,

    /// Whether attention is computed in one step
    #[arg(long, value_name = "WHEN", value_parser = flash_attention(), default_value_t)]
    flash_attn: FlashAttention,

    /// Tokens that one step processes at most [default: the engine's choice]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    batch_size: Option<u32>,

    /// Requests that may wait for a slot [default: the engine's choice]
    #[arg(long, value_name = "N")]
    queue: Option<u32>,

    /// Folder for the slots' caches from one start to the next
    #[arg(long, value_name = "DIR", requires = "slot_save_bytes")]
    slot_save_dir: Option<PathBuf>,

    /// Most bytes of them
    #[arg(long, value_name = "BYTES", requires = "slot_save_dir")]
    slot_save_bytes: Option<u64>,

    /// Worker to split the model with, in the order of the layers; may be repeated. Its secret is in
    /// MESH_LLM_RPC_SECRET [default: none]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    rpc: Vec<String>,

    /// Layers, or shares of them, of this machine's devices and of each worker's [default: the engine's choice]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', requires = "rpc")]
    tensor_split: Vec<u32>,

    /// Give all devices of the split as many layers, also those that the model could do without
    #[arg(long, requires = "rpc", conflicts_with = "tensor_split")]
    even_split: bool,

    /// Milliseconds that a step takes longer than it would, so that a small model stands for a large one in
    /// benches
    #[arg(long, hide = true, env = STEP_DELAY_VARIABLE, value_name = "MS", default_value_t)]
    step_delay: u32,

    /// GGUF file of a small model that guesses ahead, of a split model its first part, or an EAGLE-3 file
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,

    /// Go on without the draft model if it does not fit: nobody named it
    #[arg(long, requires = "draft")]
    draft_found: bool,

    #[arg(long, value_name = "N", help = format!("Tokens of a window of guesses at most [default: {MOST_WINDOW}]"))]
    draft_max: Option<Count>,

    /// How likely a guess of the draft model must be
    #[arg(long, value_name = "P", default_value_t)]
    draft_min_p: Probability,

    /// What guesses ahead; draft: the draft model, or heads
    #[arg(long, value_name = "WHAT", value_parser = speculation(), default_value_t)]
    speculate: SpeculationMode,

    /// Windows of guesses in flight [default: as many as pay]
    #[arg(long, value_name = "N")]
    draft_windows: Option<Count>,

    /// File in which fingerprints of models are remembered, for a split [default: none]
    #[arg(long, value_name = "FILE")]
    fingerprints: Option<PathBuf>,

    /// Form of the log on standard error
    #[arg(long, value_name = "FORMAT", value_parser = log_format(), default_value_t)]
    log_format: LogFormat,

    /// Says more: -v for what happens, -vv for everything
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// What comes in the environment, which other users do not see.
#[derive(Default)]
struct Secrets {
    /// What requests must carry.
    listener: Option<String>,
    /// What the workers of a split must be shown.
    workers: Option<String>,
    /// Where they are reached.
    door: Option<Door>,
}

impl Arguments {
    fn into_options(self, secrets: Secrets) -> Options {
        let origin = if self.draft_found {
            Origin::Found
        } else {
            Origin::Asked
        };
        Options {
            listen: self.listen,
            secret: secrets.listener,
            model: self.model,
            model_name: self.model_name,
            context: self.ctx_size,
            slots: self.parallel,
            devices: self.device,
            threads: self.threads,
            gpu_layers: self.gpu_layers,
            max_memory: self.max_memory,
            max_vram: self.max_vram,
            cache_type_k: self.cache_type_k,
            cache_type_v: self.cache_type_v,
            flash_attention: self.flash_attn,
            batch_size: self.batch_size,
            queue: self.queue,
            slot_save: self
                .slot_save_dir
                .zip(self.slot_save_bytes)
                .map(|(folder, most_bytes)| SlotSave { folder, most_bytes }),
            rpc: self.rpc,
            rpc_secret: secrets.workers,
            door: secrets.door,
            tensor_split: self.tensor_split,
            even_split: self.even_split,
            speculation: Speculation {
                draft: self.draft.map(|path| Draft { path, origin }),
                most_window: self.draft_max.map_or(MOST_WINDOW, Count::get),
                min_p: self.draft_min_p,
                mode: self.speculate,
                windows: self.draft_windows.map(Count::get),
            },
            fingerprints: self.fingerprints,
            log: self.log_format,
            verbose: self.verbose,
            step_delay: Duration::from_millis(self.step_delay.into()),
        }
    }
}

/// Runs the engine in this process.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    let terminal = io::stderr().is_terminal();
    log::start(
        io::stderr,
        Style {
            format: arguments.log_format,
            verbose: arguments.verbose,
            terminal,
        },
    );
    let secrets = Secrets {
        listener: std::env::var(SECRET_VARIABLE).ok(),
        workers: std::env::var(RPC_SECRET_VARIABLE).ok(),
        // What is no door leads nowhere, and the engine then says which worker it does not reach.
        door: std::env::var(DOOR_VARIABLE)
            .ok()
            .and_then(|door| door.parse().ok()),
    };
    llama_engine::server::run(arguments.into_options(secrets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::arguments;

    fn read_back(options: &Options) -> Options {
        let words = std::iter::once("llama-server".into()).chain(arguments(options));
        Program::try_parse_from(words)
            .unwrap()
            .arguments
            .into_options(Secrets {
                listener: options.secret.clone(),
                workers: options.rpc_secret.clone(),
                door: options.door,
            })
    }

    #[test]
    fn what_the_daemon_writes_is_what_the_child_reads() {
        let listen = Listen::Unix("/run/a b.sock".into());
        let least = Options::new(listen, "/m/x.gguf".into(), "x".to_owned());
        assert_eq!(read_back(&least), least);
        let all = Options {
            secret: Some("s".to_owned()),
            context: Some(4096),
            slots: Some(4),
            devices: vec!["CUDA0".to_owned(), "CUDA1".to_owned()],
            threads: Some(2),
            gpu_layers: Some(0),
            max_memory: Some(7_500_000_000),
            max_vram: Some(1_000_000_000),
            cache_type_k: CacheType::Q8_0,
            cache_type_v: CacheType::Bf16,
            flash_attention: FlashAttention::On,
            batch_size: Some(512),
            queue: Some(0),
            slot_save: Some(SlotSave {
                folder: "/s".into(),
                most_bytes: 1 << 40,
            }),
            rpc: vec!["10.0.0.2:9338".to_owned(), "[::1]:9338".to_owned()],
            rpc_secret: Some("w".to_owned()),
            door: Some(format!("127.0.0.1:1/{}", "0a".repeat(32)).parse().unwrap()),
            tensor_split: vec![20, 0, 4],
            speculation: Speculation {
                draft: Some(Draft {
                    path: "/m/d e.gguf".into(),
                    origin: Origin::Asked,
                }),
                most_window: 16,
                min_p: "0.3".parse().unwrap(),
                mode: SpeculationMode::NGram,
                windows: Some(3),
            },
            fingerprints: Some("/h/f.json".into()),
            log: LogFormat::Json,
            verbose: 2,
            ..least
        };
        assert_eq!(read_back(&all), all);
        let even = Options {
            tensor_split: Vec::new(),
            even_split: true,
            ..all.clone()
        };
        assert_eq!(read_back(&even), even);
        let mut found = all;
        found.speculation.draft = Some(Draft {
            path: "/m/d.gguf".into(),
            origin: Origin::Found,
        });
        assert_eq!(read_back(&found), found);
    }
}
