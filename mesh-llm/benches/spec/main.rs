//! What guessing ahead gains, on one machine and on several: `just bench-spec [--quick] [--fixed] [--json FILE]
//! [CASE]…`.
//!
//! The tiny model answers, its draft model guesses. Cases are named after what is asked, the number of nodes
//! and the round-trip time between them in milliseconds: `code-2-80`; a first part (`code`, `code-2`) names
//! all that begin with it. In each step a node's layers take 15 ms longer than they would, as those of a 32B
//! model on two GPUs do; cases that begin with `0ms-` are without that. Variants are `none`, the sources
//! `draft` and `ngram` alone, and `policy`, which chooses by itself; with `--fixed` also fixed lengths and
//! numbers of windows, of which the policy should be as good as the best. It needs root.

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
    anyhow::bail!("bench-spec needs Linux: its nodes are network namespaces")
}
