//! What a node does for the hosts of other nodes: it computes parts of their graphs.

pub mod check;
