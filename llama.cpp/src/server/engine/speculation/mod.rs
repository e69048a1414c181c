//! Speculative decoding: text is guessed, and the model says in one step how much of it is right.

mod acceptance;
mod policy;
#[cfg(test)]
mod simulator;
