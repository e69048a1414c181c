//! What a machine computes with, as `rpc-server --list-devices` tells it.

use serde::{Deserialize, Serialize};

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// ggml's name, `CUDA0` for example: what `--device` takes.
    pub name: String,
    /// What the vendor calls it.
    pub description: String,
    /// Whose memory it has.
    pub memory: MemoryKind,
    /// Bytes of that in all.
    pub total: u64,
    /// Bytes of that which nobody uses.
    pub free: u64,
    /// Bytes a second that it reads; none before it is measured.
    pub bandwidth: Option<u64>,
}

/// Whose memory a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryKind {
    /// It is the processor.
    Host,
    /// A GPU that shares the processor's.
    Shared,
    /// A GPU with its own.
    Own,
}
