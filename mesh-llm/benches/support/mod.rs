//! What all benches share: arguments, rows and their table, variants measured in turn, the real
//! binary started for measurement, and a client that takes little of the machine it measures.
//!
//! It knows nothing of any one bench. Not every bench uses all of it.

#![allow(dead_code)]

pub mod arguments;
pub mod client;
pub mod clock;
pub mod daemon;
pub mod files;
pub mod http;
pub mod models;
pub mod prompts;
pub mod report;
pub mod statistics;
pub mod streams;
pub mod variants;
