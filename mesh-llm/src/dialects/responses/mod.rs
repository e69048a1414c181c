//! The dialect OpenAI Responses (<https://platform.openai.com/docs/api-reference/responses>).
//!
//! A [`Draft`] is a request as it was read. Together with what it refers to ([`Known`]: earlier
//! responses and their items, which whoever keeps them looks up) it becomes an [`Asked`]: a chat for
//! the engine and a [`Reply`] that makes the [`Response`] of the engine's answer. Both a whole answer
//! and a stream go through the same [`Reply`], so that they cannot differ. [`call()`] says which
//! paths are whose.

mod answer;
mod call;
mod entry;
mod events;
mod fields;
mod item;
mod list;
mod messages;
mod reply;
mod request;
mod response;
mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod tools;

pub use call::{Call, call};
pub use fields::words;
pub use item::Item;
pub use list::{Page, refuse_stream};
pub use reply::Reply;
pub use request::{Asked, Draft, Origin};
pub use response::{Response, Status, deleted};

use super::Problem;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// A response, and what it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The response.
    pub response: Response,
    /// The items that came with its request; those of earlier responses are with these.
    pub input: Vec<Item>,
}

impl Turn {
    /// How many bytes it has as JSON.
    pub fn bytes(&self) -> usize {
        let input: usize = self.input.iter().map(|item| json!(item).to_string().len()).sum();
        self.response.json().len() + input
    }

    /// Its items, in the order in which the model sees them.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.input.iter().chain(&self.response.output)
    }
}

/// What a request refers to.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The conversation up to `previous_response_id`, oldest first.
    pub history: Vec<Arc<Turn>>,
    /// The items that were referred to, by their ids.
    pub items: HashMap<String, Item>,
}

/// There is no response of that id.
pub fn not_found(id: &str) -> Problem {
    Problem::not_found(format!("Response with id '{id}' not found."))
}

/// A request continues a response that is not there.
pub fn previous_not_found(id: &str) -> Problem {
    Problem {
        code: Some("previous_response_not_found".to_owned()),
        param: Some("previous_response_id".to_owned()),
        // 400 it is at OpenAI, not 404.
        ..Problem::invalid(None, format!("Previous response with id '{id}' not found."))
    }
}

/// A request continues a response that is still being made.
pub fn previous_in_progress(id: &str) -> Problem {
    let message = format!("Previous response with id '{id}' is still in progress: wait for its end.");
    Problem::invalid(Some("previous_response_id"), message)
}

/// A response is over, so that nothing is left to cancel.
pub fn not_cancellable(response: &Response) -> Problem {
    Problem::invalid(
        None,
        format!("Cannot cancel a {} response.", response.status.word()),
    )
}
