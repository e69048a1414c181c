//! What members of a mesh do together, over a network that is made up: see [`lab`].

mod clients;
mod commands;
mod faults;
mod joining;
mod kicks;
mod lab;
mod links;
mod net;
mod parts;
mod random;
mod refusals;
mod restarts;
