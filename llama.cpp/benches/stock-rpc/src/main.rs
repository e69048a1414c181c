//! llama.cpp's own RPC backend at work: `stock-rpc server ADDRESS` and `stock-rpc host`.
//!
//! The host loads a model over the servers that it is told, says how long that took, and then does the work
//! that comes to its standard input, a line of JSON each, answering each with its time: what
//! `mesh-llm/benches/split` drives. It knows nothing of the network between.

mod host;
mod llama;
mod server;

use std::path::PathBuf;

use clap::Parser;

/// Runs llama.cpp's own RPC backend, to be measured.
#[derive(Debug, Parser)]
enum Command {
    /// Offers this machine's CPU until standard input ends
    Server {
        /// Where it listens: ADDRESS:PORT
        address: String,

        /// Threads that compute
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Loads a model and does what standard input says
    Host(HostOptions),
}

/// How a model is loaded, and its context made.
#[derive(Debug, clap::Args)]
struct HostOptions {
    /// The GGUF file
    #[arg(long)]
    model: PathBuf,

    /// The servers, ADDRESS:PORT each; none: this process computes everything
    #[arg(long, value_delimiter = ',')]
    rpc: Vec<String>,

    /// As many of the last layers, the head counting as one, are the servers'
    #[arg(long, default_value_t = 0)]
    gpu_layers: i32,

    /// The servers' shares of those
    #[arg(long, value_delimiter = ',')]
    tensor_split: Vec<f32>,

    /// Tokens that all streams share
    #[arg(long, default_value_t = 8192)]
    context: u32,

    /// Streams at once, at most
    #[arg(long, default_value_t = 8)]
    streams: u32,

    /// Threads that compute here
    #[arg(long, default_value_t = 1)]
    threads: i32,
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Server { address, threads } => server::run(&address, threads),
        Command::Host(options) => host::run(&options),
    }
}
