//! A host and its workers, over TCP, in one process.

mod lab;
mod same;
