//! Black-box tests of a mesh: the real binary on several machines with a network between them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../support/clock.rs"]
mod clock;
mod clocks;
mod copies;
mod entering;
#[path = "../blackbox/harness/mod.rs"]
#[allow(dead_code, unused_imports)]
mod harness;
#[path = "../support/hub/mod.rs"]
mod hub;
mod lab;
mod leaving;
mod loading;
#[path = "../support/netlab/mod.rs"]
mod netlab;
#[path = "../support/relay.rs"]
mod relay;
mod relaying;
mod serving;
mod splitting;
mod strangers;
mod taking_on;
