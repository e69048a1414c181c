//! Several machines that serve each other: `just bench-mesh [--quick] [--json FILE] [CASE]…`.
//!
//! Machines are hosts of a netlab, all on this one's cores, with models as small as can be: what is measured is the
//! mesh. Cases are named after what is measured and the number of nodes or the round-trip time between them in
//! milliseconds: `idle-20`, `join-20`; a first part (`idle`) names all that begin with it. It needs root.

// What it stands on is Linux's; elsewhere it still compiles, as all targets are checked there, too.
#[cfg(target_os = "linux")]
#[path = "../../tests/support/netlab/mod.rs"]
mod netlab;
#[cfg(target_os = "linux")]
#[path = "../../tests/support/relay.rs"]
mod relay;
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
    anyhow::bail!("bench-mesh needs Linux: its machines are network namespaces")
}
