//! What the addresses of `GET` requests ask for.

use super::super::Problem;
use super::fields::wrong_value;
use super::item::Item;
use serde::Serialize;
use serde_json::json;

/// Which of a response's input items are asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    after: Option<String>,
    limit: usize,
    order: Order,
}

#[derive(Debug, PartialEq, Eq)]
enum Order {
    OldestFirst,
    NewestFirst,
}

#[derive(Debug, Serialize)]
struct List<'a> {
    object: &'static str,
    data: &'a [&'a Item],
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
    has_more: bool,
}

impl Page {
    /// Reads an address' query.
    ///
    /// # Errors
    /// Where `limit` or `order` is none.
    pub fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut page = Self {
            after: None,
            limit: 20,
            order: Order::NewestFirst,
        };
        for (name, value) in pairs(query) {
            match name {
                "after" => page.after = Some(value.to_owned()),
                "limit" => {
                    page.limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=100).contains(limit))
                        .ok_or_else(|| {
                            wrong_value("limit", format!("limit is {value:?}, but must be from 1 to 100"))
                        })?;
                }
                "order" => {
                    page.order = match value {
                        "asc" => Order::OldestFirst,
                        "desc" => Order::NewestFirst,
                        _ => {
                            let message = format!("order is {value:?}, but must be \"asc\" or \"desc\"");
                            return Err(wrong_value("order", message));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(page)
    }

    /// The page as an answer's body.
    ///
    /// # Errors
    /// Where the item that it begins after is not one of these.
    pub fn of(&self, mut items: Vec<&Item>) -> Result<Vec<u8>, Problem> {
        if self.order == Order::NewestFirst {
            items.reverse();
        }
        let start = match &self.after {
            None => 0,
            Some(after) => items
                .iter()
                .position(|item| item.id() == after)
                .map(|index| index + 1)
                .ok_or_else(|| wrong_value("after", format!("Item with id '{after}' not found.")))?,
        };
        let end = items.len().min(start + self.limit);
        let data = &items[start..end];
        let list = List {
            object: "list",
            data,
            first_id: data.first().map(|item| item.id()),
            last_id: data.last().map(|item| item.id()),
            has_more: end < items.len(),
        };
        Ok(json!(list).to_string().into_bytes())
    }
}

/// Refuses a response that is to be told as a stream, long after it began.
///
/// # Errors
/// Where that is asked for.
pub fn refuse_stream(query: Option<&str>) -> Result<(), Problem> {
    match pairs(query).find(|(name, value)| *name == "stream" && *value != "false") {
        None => Ok(()),
        Some(_) => Err(Problem::invalid(
            Some("stream"),
            "stream: a response can be streamed only by the request that creates it; leave this out to get \
             the response as far as it is",
        )),
    }
}

/// The pairs of a query. None of what is looked for here has a character that is written otherwise.
fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.unwrap_or("").split('&');
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}
