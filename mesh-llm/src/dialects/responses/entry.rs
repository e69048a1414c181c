//! Items as they come with a request.

use super::super::Problem;
use super::fields::{missing, object, unsupported, wrong_type, wrong_value};
use super::item::{
    FunctionCall, FunctionCallOutput, Item, ItemStatus, Message, Output, Part, Reasoning, Role, Summary,
    Thought,
};
use serde::Deserialize;
use serde_json::Value;

/// Makes ids: no two of a response are the same, nor are those of different seeds.
#[derive(Debug)]
pub(super) struct Ids {
    seed: String,
    made: usize,
}

impl Ids {
    pub(super) fn new(seed: String) -> Self {
        Self { seed, made: 0 }
    }

    pub(super) fn response(&self) -> String {
        format!("resp_{}", self.seed)
    }

    pub(super) fn next(&mut self, prefix: &str) -> String {
        let id = format!("{prefix}_{}{:04x}", self.seed, self.made);
        self.made += 1;
        id
    }

    fn given(&mut self, given: Option<String>, prefix: &str) -> String {
        given
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| self.next(prefix))
    }
}

/// An item of a request. Ids are made later: an item may come without one.
#[derive(Debug)]
pub(super) enum Entry {
    Message(MessageFields, Vec<Part>),
    FunctionCall(CallFields),
    FunctionCallOutput(OutputFields, Output),
    Reasoning(ReasoningFields),
    /// An item of an earlier response, by its id.
    Reference {
        id: String,
        path: String,
    },
}

#[derive(Debug, Deserialize)]
pub(super) struct MessageFields {
    id: Option<String>,
    role: Role,
    status: Option<ItemStatus>,
    content: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct CallFields {
    id: Option<String>,
    call_id: String,
    name: String,
    arguments: String,
    status: Option<ItemStatus>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OutputFields {
    id: Option<String>,
    call_id: String,
    output: Value,
    status: Option<ItemStatus>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReasoningFields {
    id: Option<String>,
    summary: Option<Vec<Summary>>,
    content: Option<Vec<Thought>>,
    encrypted_content: Option<String>,
    status: Option<ItemStatus>,
}

#[derive(Debug, Deserialize)]
struct ReferenceFields {
    id: String,
}

impl Entry {
    /// A question.
    pub(super) fn question(text: String) -> Self {
        let fields = MessageFields {
            id: None,
            role: Role::User,
            status: None,
            content: Value::Null,
        };
        Self::Message(fields, vec![Part::InputText { text }])
    }

    pub(super) fn read(value: Value, path: &str) -> Result<Self, Problem> {
        let kind = match value.get("type") {
            // A message needs no type, and neither does a reference.
            None | Some(Value::Null) if value.get("role").is_none() && value.get("id").is_some() => {
                "item_reference".to_owned()
            }
            None | Some(Value::Null) => "message".to_owned(),
            Some(Value::String(kind)) => kind.clone(),
            Some(_) => return Err(wrong_type(&format!("{path}.type"), "a string")),
        };
        match kind.as_str() {
            "message" => {
                let mut fields: MessageFields = object(value, path)?;
                let role = fields.role;
                let parts = match text_or_parts(fields.content.take(), &format!("{path}.content"), role)? {
                    Output::Text(text) => vec![said(role, text)],
                    Output::Parts(parts) => parts,
                };
                Ok(Self::Message(fields, parts))
            }
            "function_call" => Ok(Self::FunctionCall(object(value, path)?)),
            "function_call_output" => {
                let mut fields: OutputFields = object(value, path)?;
                let output = text_or_parts(fields.output.take(), &format!("{path}.output"), Role::User)?;
                Ok(Self::FunctionCallOutput(fields, output))
            }
            "reasoning" => Ok(Self::Reasoning(object(value, path)?)),
            "item_reference" => {
                let ReferenceFields { id } = object(value, path)?;
                let path = format!("{path}.id");
                Ok(Self::Reference { id, path })
            }
            other => Err(unsupported(
                &format!("{path}.type"),
                format!(
                    "{path}.type is {other:?}, but this server takes message, function_call, \
                     function_call_output, reasoning and item_reference: it has no tools of its own, so \
                     leave out the items of such tools"
                ),
            )),
        }
    }

    /// The item, with an id; of a reference, the one that `find` knows.
    pub(super) fn item(
        self,
        ids: &mut Ids,
        find: impl FnOnce(&str) -> Option<Item>,
    ) -> Result<Item, Problem> {
        Ok(match self {
            Self::Message(fields, content) => Item::Message(Message {
                id: ids.given(fields.id, "msg"),
                role: fields.role,
                status: fields.status.unwrap_or_default(),
                content,
            }),
            Self::FunctionCall(fields) => Item::FunctionCall(FunctionCall {
                id: ids.given(fields.id, "fc"),
                call_id: fields.call_id,
                name: fields.name,
                arguments: fields.arguments,
                status: fields.status.unwrap_or_default(),
            }),
            Self::FunctionCallOutput(fields, output) => Item::FunctionCallOutput(FunctionCallOutput {
                id: ids.given(fields.id, "fco"),
                call_id: fields.call_id,
                output,
                status: fields.status.unwrap_or_default(),
            }),
            Self::Reasoning(fields) => Item::Reasoning(Reasoning {
                id: ids.given(fields.id, "rs"),
                summary: fields.summary.unwrap_or_default(),
                content: fields.content.unwrap_or_default(),
                encrypted_content: fields.encrypted_content,
                status: fields.status.unwrap_or_default(),
            }),
            Self::Reference { id, path } => find(&id).ok_or_else(|| Problem {
                status: 404,
                ..wrong_value(
                    &path,
                    format!(
                        "Item with id '{id}' not found. Items are kept with the response that they belong \
                         to, and not if `store` is false: send the item itself."
                    ),
                )
            })?,
        })
    }
}

fn said(role: Role, text: String) -> Part {
    match role {
        Role::Assistant => Part::output(text),
        _ => Part::InputText { text },
    }
}

fn text_or_parts(value: Value, path: &str, role: Role) -> Result<Output, Problem> {
    match value {
        Value::String(text) => Ok(Output::Text(text)),
        Value::Array(parts) => {
            let read = |(index, value)| part(value, &format!("{path}[{index}]"), role);
            let parts = parts.into_iter().enumerate().map(read);
            Ok(Output::Parts(parts.collect::<Result<_, _>>()?))
        }
        _ => Err(wrong_type(path, "a string or an array of parts")),
    }
}

#[derive(Debug, Deserialize)]
struct PartFields {
    r#type: Option<String>,
    text: Option<String>,
    refusal: Option<String>,
}

fn part(value: Value, path: &str, role: Role) -> Result<Part, Problem> {
    let fields: PartFields = object(value, path)?;
    match fields.r#type.as_deref() {
        Some("input_text" | "output_text" | "text") => {
            let text = fields.text.ok_or_else(|| missing(&format!("{path}.text")))?;
            Ok(said(role, text))
        }
        Some("refusal") => {
            let refusal = fields
                .refusal
                .ok_or_else(|| missing(&format!("{path}.refusal")))?;
            Ok(Part::Refusal { refusal })
        }
        None => Err(missing(&format!("{path}.type"))),
        Some(other) => Err(unsupported(
            path,
            format!(
                "{path} is of the type {other:?}, but the model takes text only: send it as input_text, or \
                 leave it out"
            ),
        )),
    }
}
