//! A host and its workers, over TCP, in one process.

#[cfg(test)]
mod admission;
#[cfg_attr(not(test), allow(dead_code))]
mod dice;
#[cfg(test)]
mod failures;
pub mod hosts;
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod lab;
#[cfg(test)]
mod layouts;
#[cfg(test)]
mod liars;
#[cfg(test)]
mod liveness;
pub mod lying;
#[cfg(test)]
pub(crate) mod proxy;
#[cfg(test)]
mod same;
#[cfg(test)]
mod waiting;
