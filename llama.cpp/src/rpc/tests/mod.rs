//! A host and its workers, over TCP, in one process.

mod admission;
mod failures;
mod lab;
mod liars;
mod liveness;
mod proxy;
mod same;
