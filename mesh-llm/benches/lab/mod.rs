//! Several machines to measure on, for benches that declare `netlab` and `support` beside it: hosts of a
//! netlab, and workers on them.

pub mod nodes;
pub mod workers;
