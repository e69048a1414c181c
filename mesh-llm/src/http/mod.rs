//! What the HTTP servers of this program have in common: taking connections, telling whose page or
//! name a request comes by, and saying no.
//!
//! It knows nothing of what is served.

mod answer;
mod connections;
mod cors;
mod host;
mod page;
mod refusal;
#[cfg(test)]
pub(crate) mod testing;
mod upload;

pub use answer::{AnswerBody, json, whole};
pub use connections::{End, Listener, MAX_BUFFER_BYTES, Shutdown, serve};
pub use host::foreign as foreign_host;
pub use page::is_foreign as is_foreign_page;
pub use refusal::{OPENAI, Words, foreign_name, foreign_page, refuse, refuse_with, refused};
pub use upload::{Upload, read};
