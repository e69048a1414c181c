//! What this machine itself serves.

use super::error::{self, NotReady};
use crate::engine::{Serving, State};
use tokio::sync::watch;

/// Whether this machine has an engine.
#[derive(Debug, Clone)]
pub enum Own {
    /// It has one, which is in this state.
    Engine(watch::Receiver<State>),
    /// It only uses what other nodes serve.
    None,
}

impl Own {
    /// The engine that answers requests, or why there is none.
    pub(super) fn serving(&self) -> Result<Serving, NotReady> {
        match self {
            Own::Engine(state) => error::serving(&state.borrow()).cloned(),
            Own::None => Err(error::no_node()),
        }
    }

    /// Whether this machine answers by what others serve, or by its other models.
    pub(super) fn leaves_it_to_others(&self) -> bool {
        match self {
            Own::Engine(state) => matches!(*state.borrow(), State::Elsewhere { .. }),
            Own::None => true,
        }
    }

    /// Whether this machine has no engine.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Own::None)
    }
}
