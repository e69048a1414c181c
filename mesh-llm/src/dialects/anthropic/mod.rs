//! Anthropic's Messages (<https://platform.claude.com/docs/en/api/messages>), as Claude Code and the
//! official clients speak it.
//!
//! The types are those of the Python client `anthropic` 2.12.0 (`anthropic/types`). What a client may
//! send and this program cannot do is refused by name; fields that only steer Anthropic's own service
//! (`metadata`, `service_tier`, `cache_control`, `context_management`) are ignored.

mod answer;
mod content;
mod count;
mod endpoint;
mod error;
mod fields;
mod request;
mod stream;
#[cfg(test)]
mod tests;
mod tools;

pub use endpoint::{Endpoint, route};
pub use error::words;
pub use request::{count_tokens, messages};
