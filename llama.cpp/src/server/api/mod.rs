//! The HTTP API as data: requests are read and checked here, responses and errors are built here.
//!
//! Nothing in here does I/O, knows llama.cpp or needs a model: bytes go in, checked requests come
//! out; answers go in, what is serialised comes out. `http` translates between this and the engine.
//!
//! The wire is OpenAI's, with llama.cpp's extensions. Fields that nobody knows are ignored, a field
//! that is `null` counts as absent, and whatever is wrong is a 400 that names the parameter.

pub mod absent;
pub mod chat;
pub mod completion;
pub mod constraint;
pub mod embedding;
pub mod error;
pub mod generation;
pub mod input;
pub mod json;
pub mod limits;
pub mod logit_bias;
pub mod logprobs;
pub mod model;
mod range;
pub mod rerank;
pub mod response;
pub mod sampling;
pub mod sse;
pub mod stop;
pub mod tokenize;
pub mod usage;

pub use error::{ApiError, ErrorCode, Status};

/// What the responses call this version of the engine.
pub const SYSTEM_FINGERPRINT: &str = concat!("mesh-llm-", env!("CARGO_PKG_VERSION"));
