//! The split: devices of other nodes as devices of ggml.

pub mod graph;
#[cfg(feature = "native")]
pub mod worker;
