//! The command `mesh-llm`, which is `llama-server` or `rpc-server` when it is started under that name.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_llm::cli::main(std::env::args_os().collect())
}
