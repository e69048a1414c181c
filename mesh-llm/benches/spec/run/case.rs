//! What is measured, and what should come of it.

use std::time::Duration;

use super::texts::Text;

/// A cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What is asked.
    pub text: Text,
    /// How many machines answer.
    pub nodes: usize,
    /// Milliseconds between any two of them and back.
    pub rtt: u64,
    /// Milliseconds that a node's layers take longer for a step.
    pub step_ms: u64,
}

/// What a 32B model on two GPUs takes for a step on each.
const LARGE: u64 = 15;

/// How long a node takes for a step without that, about.
const TINY_STEP: Duration = Duration::from_millis(2);

/// All of them, in the order in which they are measured: cases of the same machines follow each other.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for step_ms in [LARGE, 0] {
        for nodes in [1, 2, 3] {
            // Nothing is between one node.
            let rtts: &[u64] = if nodes == 1 { &[0] } else { &[0, 20, 80] };
            for rtt in rtts {
                cases.extend(Text::ALL.map(|text| Case {
                    text,
                    nodes,
                    rtt: *rtt,
                    step_ms,
                }));
            }
        }
    }
    cases
}

impl Case {
    /// Such as `code-2-80`; without extra time `0ms-code-2-80`.
    pub fn name(&self) -> String {
        let name = format!("{}-{}-{}", self.text.name(), self.nodes, self.rtt);
        if self.step_ms == LARGE {
            name
        } else {
            format!("{}ms-{name}", self.step_ms)
        }
    }

    /// Whether `--quick` has it, where no case is named.
    pub fn is_quick(&self) -> bool {
        matches!(
            (self.text, self.nodes, self.rtt, self.step_ms),
            (
                Text::Code | Text::Stories | Text::Random | Text::Streams,
                2,
                20 | 80,
                LARGE
            ) | (Text::Facts | Text::Edits, 2, 80, LARGE)
                | (Text::Code, 1, 0, LARGE)
                | (Text::Code, 2, 80, 0)
        )
    }

    /// How many times as fast as none the policy should be.
    pub fn least_gain(&self) -> f64 {
        match (self.text, self.nodes, self.rtt, self.step_ms) {
            (Text::Code, 2, 20, LARGE) => 8.0,
            (Text::Code, 2, 80, LARGE) => 11.0,
            (Text::Stories, 2, 20 | 80, LARGE) => 4.0,
            // Never slower, but for what cannot be told from chance.
            _ => 0.97,
        }
    }

    /// How often it is measured in full: what has a goal of its own, several times.
    pub fn rounds(&self) -> usize {
        let own = self.nodes == 2 && self.rtt > 0 && self.step_ms == LARGE;
        if own && !matches!(self.text, Text::Facts | Text::Edits) {
            3
        } else {
            1
        }
    }

    /// What a token takes without guesses, about.
    fn token(&self) -> Duration {
        let nodes = self.nodes as u32;
        let hops = if self.nodes == 1 { 0 } else { nodes };
        (Duration::from_millis(self.step_ms) + TINY_STEP) * nodes + Duration::from_millis(self.rtt) / 2 * hops
    }

    /// How many tokens take about so long without guesses; as many as make a rate at least, and no more than
    /// most answers have.
    pub fn tokens_within(&self, time: Duration) -> usize {
        let tokens = time.as_secs_f64() / self.token().as_secs_f64();
        (tokens as usize).clamp(24, 110)
    }
}
