//! One model over several machines, against llama.cpp's own RPC: `just bench-split [--quick] [--json FILE]
//! [CASE]…`.
//!
//! Machines are hosts of a netlab with a core and a compute thread each. Cases are named after what is
//! measured, the number of nodes and the round-trip time between them in milliseconds: `decode-2-20`; a
//! first part (`decode`, `decode-2`) names all that begin with it. Variants are `solo` (mesh-llm on one
//! node), `stock` (llama.cpp's RPC, driven by its own loop without HTTP) and `ours`. It needs root.

// What it stands on is Linux's; elsewhere it still compiles, as all targets are checked there, too.
#[cfg(target_os = "linux")]
#[path = "../lab/mod.rs"]
mod lab;
#[cfg(target_os = "linux")]
#[path = "../../tests/support/netlab/mod.rs"]
mod netlab;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("bench-split needs Linux: its nodes are network namespaces")
}
