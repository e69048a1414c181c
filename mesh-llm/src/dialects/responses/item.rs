//! Items: what a conversation is made of, as it is kept and as clients get it.

use super::tokens::Token;
use serde::{Deserialize, Serialize};

/// A part of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Somebody says something.
    Message(Message),
    /// The model calls a function.
    FunctionCall(FunctionCall),
    /// What a function returned.
    FunctionCallOutput(FunctionCallOutput),
    /// What the model thought.
    Reasoning(Reasoning),
}

/// Somebody says something.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    pub(super) id: String,
    pub(super) role: Role,
    pub(super) status: ItemStatus,
    pub(super) content: Vec<Part>,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by the newer name.
    Developer,
    /// A question.
    User,
    /// An answer.
    Assistant,
}

/// How far an item is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// More may come.
    InProgress,
    /// Whole.
    #[default]
    Completed,
    /// Broken off.
    Incomplete,
}

/// A part of what is said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// By the client.
    InputText {
        /// The text.
        text: String,
    },
    /// By the model.
    OutputText(OutputText),
    /// By the model, which will not answer.
    Refusal {
        /// The text.
        refusal: String,
    },
}

/// A text of the model's.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OutputText {
    /// Sources: tools of the server's would name them, and it has none.
    annotations: [(); 0],
    pub(super) logprobs: Vec<Token>,
    pub(super) text: String,
}

impl Part {
    pub(super) fn output(text: String) -> Self {
        Self::OutputText(OutputText {
            text,
            ..OutputText::default()
        })
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::InputText { text } => text,
            Self::OutputText(output) => &output.text,
            Self::Refusal { refusal } => refusal,
        }
    }
}

/// The model calls a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionCall {
    pub(super) id: String,
    pub(super) call_id: String,
    pub(super) name: String,
    pub(super) arguments: String,
    pub(super) status: ItemStatus,
}

/// What a function returned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionCallOutput {
    pub(super) id: String,
    pub(super) call_id: String,
    pub(super) output: Output,
    pub(super) status: ItemStatus,
}

/// In one piece, or in several.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Output {
    /// In one.
    Text(String),
    /// In several.
    Parts(Vec<Part>),
}

/// What the model thought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reasoning {
    pub(super) id: String,
    pub(super) summary: Vec<Summary>,
    pub(super) content: Vec<Thought>,
    pub(super) encrypted_content: Option<String>,
    pub(super) status: ItemStatus,
}

/// A thought in few words: never written here, but clients send those of other servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Summary {
    /// The only kind.
    SummaryText {
        /// The text.
        text: String,
    },
}

/// A thought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Thought {
    /// The only kind.
    ReasoningText {
        /// The text.
        text: String,
    },
}

impl Reasoning {
    /// The thoughts; where they are not known, what was said of them.
    pub(super) fn text(&self) -> String {
        let thoughts: String = self
            .content
            .iter()
            .map(|Thought::ReasoningText { text }| text.as_str())
            .collect();
        if !thoughts.is_empty() {
            return thoughts;
        }
        let summary: Vec<&str> = self
            .summary
            .iter()
            .map(|Summary::SummaryText { text }| text.as_str())
            .collect();
        summary.join("\n\n")
    }
}

impl Item {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Message(message) => &message.id,
            Self::FunctionCall(call) => &call.id,
            Self::FunctionCallOutput(output) => &output.id,
            Self::Reasoning(reasoning) => &reasoning.id,
        }
    }
}
