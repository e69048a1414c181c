//! Several machines to measure on, for benches that declare `netlab` and `support` beside it: hosts of a
//! netlab, and workers on them. Not every bench uses all of it.

#![allow(dead_code)]

pub mod nodes;
pub mod workers;
