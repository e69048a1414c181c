//! What the mesh does and who does it, decided from what is known. Pure: no clock, no runtime, no network;
//! time is an argument. Whoever decides here acts elsewhere.

pub mod adopt;
pub mod lease;
pub mod place;
pub mod role;
pub mod route;
