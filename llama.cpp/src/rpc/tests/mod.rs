//! A host and its workers, over TCP, in one process.

mod admission;
mod failures;
pub(crate) mod lab;
mod layouts;
mod liars;
mod liveness;
pub(crate) mod proxy;
mod same;
