//! What is measured, whoever does it.

use crate::netlab::Traffic;

use crate::lab::nodes::Nodes;

/// Tokens of context of every variant: the longest case and eight streams beside it.
pub const CONTEXT: u32 = 12288;

/// Streams at once, at most.
pub const STREAMS: u32 = 8;

/// Something that answers with the 0.5B model.
pub trait Engine {
    /// Milliseconds a token, of all streams together, while all of them are answered.
    ///
    /// # Errors
    /// Where an answer fails.
    fn decode(&mut self, nodes: &Nodes, streams: usize, tokens: usize) -> anyhow::Result<f64>;

    /// Milliseconds a token of a prompt of about so many, which nothing has seen before.
    ///
    /// # Errors
    /// Where an answer fails.
    fn prefill(&mut self, nodes: &Nodes, tokens: usize) -> anyhow::Result<f64>;

    /// What crosses the network for each token of an answer to a prompt of so many.
    ///
    /// # Errors
    /// Where an answer fails.
    fn traffic(&mut self, nodes: &Nodes, prompt_tokens: usize, tokens: usize) -> anyhow::Result<PerToken>;
}

/// Of each token, on average.
#[derive(Debug, Clone, Copy)]
pub struct PerToken {
    /// Bytes that programs sent.
    pub payload: f64,
    /// Packets.
    pub packets: f64,
}

impl PerToken {
    /// Of so many.
    pub fn of(traffic: Traffic, tokens: f64) -> Self {
        Self {
            payload: traffic.payload as f64 / tokens,
            packets: traffic.packets as f64 / tokens,
        }
    }
}
