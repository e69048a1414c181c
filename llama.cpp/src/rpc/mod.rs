//! The split: devices of other nodes as devices of ggml.

pub mod files;
pub mod graph;
pub mod sandbox;
