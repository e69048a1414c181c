//! What llama-server tells the process that started it, one JSON object a line on standard output.
//!
//! The protocol is written down in DESIGN.md, "Between daemon and llama-server".

use serde::{Deserialize, Serialize};

/// A line of the child's standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// Reads the model's header and computes what fits.
    Checking,
    /// Reads weights.
    Loading {
        /// 0 to 100.
        percent: u8,
    },
    /// Answers requests.
    Ready(Ready),
    /// A node of the split is lost: what was asked was answered with an error that says so, and the
    /// process ends with [`LOST_EXIT_CODE`], to be started again.
    Lost {
        /// One line for the user: which node, and the cause.
        message: String,
    },
    /// Will not run; the process ends with [`Refusal::exit_code`].
    Refused {
        /// The kind of obstacle.
        reason: Refusal,
        /// One line for the user: the thing, the cause and the remedy.
        message: String,
    },
}

/// How a llama-server ends after [`Status::Lost`].
pub const LOST_EXIT_CODE: u8 = 75;

/// What a llama-server that answers requests has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where it listens: `unix:PATH` or `tcp:ADDRESS:PORT`.
    pub address: String,
    /// Tokens that all slots share.
    pub context: u32,
    /// Requests that are served at once.
    pub slots: u32,
    /// Layers on GPUs.
    pub gpu_layers: u32,
    /// Bytes of weights in memory.
    pub model_bytes: u64,
    /// Bytes of KV cache and compute buffers, at workers with what embeddings will take.
    pub context_bytes: u64,
    /// Of a split, the layers of each node: the host's first, then the workers' as they were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_layers: Vec<u32>,
}

/// Why llama-server will not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The model and its context do not fit.
    Memory,
    /// The model's file is missing or unreadable.
    File,
    /// The file is not a model that llama.cpp can load.
    Model,
    /// An argument has no meaning for this model or machine.
    Arguments,
    /// The socket could not be opened.
    Listen,
    /// A worker of the split cannot be reached or used. Another try may succeed.
    Worker,
}

impl Refusal {
    /// The process's exit code, as DESIGN.md lists them.
    pub fn exit_code(self) -> u8 {
        match self {
            Refusal::Memory => 71,
            Refusal::File => 66,
            Refusal::Model => 65,
            Refusal::Arguments => 64,
            Refusal::Listen => 69,
            Refusal::Worker => 76,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_the_design_says() {
        let line = |s: &Status| serde_json::to_string(s).unwrap();
        assert_eq!(line(&Status::Checking), r#"{"status":"checking"}"#);
        assert_eq!(
            line(&Status::Loading { percent: 37 }),
            r#"{"status":"loading","percent":37}"#
        );
        assert_eq!(
            line(&Status::Refused {
                reason: Refusal::Memory,
                message: "needs 2 GB".into()
            }),
            r#"{"status":"refused","reason":"memory","message":"needs 2 GB"}"#
        );
        let ready = Status::Ready(Ready {
            address: "unix:/run/x".into(),
            context: 4096,
            slots: 8,
            gpu_layers: 0,
            model_bytes: 1,
            context_bytes: 2,
            node_layers: vec![3, 5],
        });
        assert_eq!(serde_json::from_str::<Status>(&line(&ready)).unwrap(), ready);
    }
}
