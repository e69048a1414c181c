//! Makes a response of what the engine answers, piece by piece or at once.

use super::super::chat::{self, Chunk, Completion, FinishReason, FunctionDelta, ToolCallDelta};
use super::super::{Form, Problem};
use super::Turn;
use super::entry::Ids;
use super::events::{Events, Place};
use super::item::{FunctionCall, Item, ItemStatus, Message, OutputText, Part, Reasoning, Role, Thought};
use super::response::{Error, IncompleteDetails, Object, Response, Status, Usage};
use super::settings::Settings;
use super::tokens::{Logprobs, Token, Tokens};
use serde_json::Value;

/// A response that is being made. Its output grows as the engine answers; the last item is the one
/// that grows.
#[derive(Debug)]
pub struct Reply {
    pub(super) response: Response,
    input: Vec<Item>,
    ids: Ids,
    pub(super) events: Events,
    progress: Progress,
    open: Option<Open>,
    tokens: Tokens,
    usage: Option<chat::Usage>,
    reasoning_tokens: u64,
    finish: Option<FinishReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Begun,
    Over,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Thought,
    Text,
    /// This call of the engine's answer.
    Call(usize),
}

impl Reply {
    pub(super) fn new(
        model: Option<String>,
        settings: Settings,
        input: Vec<Item>,
        ids: Ids,
        created_at: u64,
        form: Form,
    ) -> Self {
        let events = Events::new(form);
        Self {
            response: Response {
                id: ids.response(),
                object: Object::Response,
                created_at,
                status: Status::InProgress,
                background: false,
                error: None,
                incomplete_details: None,
                model: model.unwrap_or_default(),
                output: Vec::new(),
                usage: None,
                settings,
            },
            input,
            ids,
            events,
            progress: Progress::Waiting,
            open: None,
            tokens: Tokens::default(),
            usage: None,
            reasoning_tokens: 0,
            finish: None,
        }
    }

    /// The response as far as it is, and what it answers.
    pub fn turn(&self) -> Turn {
        Turn {
            response: self.response.clone(),
            input: self.input.clone(),
        }
    }

    /// Whether the response has its last form.
    pub fn is_over(&self) -> bool {
        self.progress == Progress::Over
    }

    /// The client gives up: what there is becomes the response. Writes how its stream ends.
    pub fn cancel(&mut self, out: &mut Vec<u8>) {
        self.stop(Status::Cancelled, None);
        self.flush(out);
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        self.events.take(out);
    }

    fn begin(&mut self, model: Option<&str>) {
        if self.progress == Progress::Waiting {
            self.progress = Progress::Begun;
            if let Some(model) = model {
                model.clone_into(&mut self.response.model);
            }
            self.events.response("response.created", &self.response);
            self.events.response("response.in_progress", &self.response);
        }
    }

    pub(super) fn chunk(&mut self, chunk: Chunk) -> Result<(), Problem> {
        self.begin(Some(&chunk.model));
        self.usage = chunk.usage.or(self.usage);
        for choice in chunk.choices {
            let tokens = tokens(choice.logprobs)?;
            self.tokens.push(tokens.clone());
            if let Some(text) = choice.delta.reasoning_content {
                self.think(&text);
            }
            if let Some(text) = choice.delta.content {
                self.say(&text, &tokens);
            }
            for call in choice.delta.tool_calls {
                self.call(call)?;
            }
            if let Some(reason) = choice.finish_reason {
                self.finish(reason);
            }
        }
        Ok(())
    }

    pub(super) fn completion(&mut self, completion: Completion) -> Result<(), Problem> {
        self.begin(Some(&completion.model));
        self.usage = Some(completion.usage);
        let choice = completion.choices.into_iter().next();
        let choice = choice.ok_or_else(|| Problem::engine("the engine's answer has no choice"))?;
        self.tokens.push(tokens(choice.logprobs)?);
        self.think(&choice.message.reasoning_content.unwrap_or_default());
        self.say(&choice.message.content.unwrap_or_default(), &[]);
        for (index, call) in choice.message.tool_calls.into_iter().enumerate() {
            self.call(ToolCallDelta {
                index,
                id: Some(call.id),
                function: FunctionDelta {
                    name: Some(call.function.name),
                    arguments: Some(call.function.arguments),
                },
            })?;
        }
        self.finish(choice.finish_reason);
        Ok(())
    }

    fn think(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(Open::Thought) {
            self.close(ItemStatus::Completed);
            let id = self.ids.next("rs");
            self.open(
                Open::Thought,
                Item::Reasoning(Reasoning {
                    id,
                    summary: Vec::new(),
                    content: Vec::new(),
                    encrypted_content: None,
                    status: ItemStatus::InProgress,
                }),
            );
        }
        let output_index = self.response.output.len() - 1;
        if let Some(Item::Reasoning(reasoning)) = self.response.output.last_mut() {
            let place = Place {
                item_id: &reasoning.id,
                output_index,
            };
            if reasoning.content.is_empty() {
                self.events.thought_added(place);
                let text = String::new();
                reasoning.content.push(Thought::ReasoningText { text });
            }
            self.events.thought_delta(place, text);
            if let [Thought::ReasoningText { text: all }] = reasoning.content.as_mut_slice() {
                all.push_str(text);
            }
        }
    }

    fn say(&mut self, text: &str, tokens: &[Token]) {
        if text.is_empty() {
            return;
        }
        self.open_text();
        let output_index = self.response.output.len() - 1;
        if let Some(Item::Message(message)) = self.response.output.last_mut()
            && let [Part::OutputText(OutputText { text: all, .. })] = message.content.as_mut_slice()
        {
            let place = Place {
                item_id: &message.id,
                output_index,
            };
            self.events.text_delta(place, text, tokens);
            all.push_str(text);
        }
    }

    fn open_text(&mut self) {
        if self.open == Some(Open::Text) {
            return;
        }
        self.close(ItemStatus::Completed);
        let id = self.ids.next("msg");
        self.open(
            Open::Text,
            Item::Message(Message {
                id,
                role: Role::Assistant,
                status: ItemStatus::InProgress,
                content: Vec::new(),
            }),
        );
        let output_index = self.response.output.len() - 1;
        if let Some(Item::Message(message)) = self.response.output.last_mut() {
            self.events.text_added(Place {
                item_id: &message.id,
                output_index,
            });
            message.content.push(Part::output(String::new()));
        }
    }

    fn call(&mut self, delta: ToolCallDelta) -> Result<(), Problem> {
        if self.open != Some(Open::Call(delta.index)) {
            let (Some(call_id), Some(name)) = (delta.id, delta.function.name) else {
                return Err(Problem::engine("the engine continued a call that is over"));
            };
            self.close(ItemStatus::Completed);
            let id = self.ids.next("fc");
            self.open(
                Open::Call(delta.index),
                Item::FunctionCall(FunctionCall {
                    id,
                    call_id,
                    name,
                    arguments: String::new(),
                    status: ItemStatus::InProgress,
                }),
            );
        }
        let arguments = delta.function.arguments.unwrap_or_default();
        let output_index = self.response.output.len() - 1;
        if let Some(Item::FunctionCall(call)) = self.response.output.last_mut()
            && !arguments.is_empty()
        {
            let place = Place {
                item_id: &call.id,
                output_index,
            };
            self.events.arguments_delta(place, &arguments);
            call.arguments.push_str(&arguments);
        }
        Ok(())
    }

    fn open(&mut self, open: Open, item: Item) {
        self.open = Some(open);
        self.events.item_added(self.response.output.len(), &item);
        self.response.output.push(item);
    }

    /// Nothing is added to the last item any more.
    fn close(&mut self, its_end: ItemStatus) {
        if self.open.take().is_none() {
            return;
        }
        let Some(output_index) = self.response.output.len().checked_sub(1) else {
            return;
        };
        let item = &mut self.response.output[output_index];
        match item {
            Item::Reasoning(reasoning) => {
                reasoning.status = its_end;
                let place = Place {
                    item_id: &reasoning.id,
                    output_index,
                };
                for part in &reasoning.content {
                    let Thought::ReasoningText { text } = part;
                    self.reasoning_tokens += self.tokens.take(text).len() as u64;
                    self.events.thought_done(place, part);
                }
            }
            Item::Message(message) => {
                message.status = its_end;
                let place = Place {
                    item_id: &message.id,
                    output_index,
                };
                for part in &mut message.content {
                    let logprobs = self.tokens.take(part.text());
                    if let Part::OutputText(output) = part {
                        output.logprobs = logprobs.to_owned();
                    }
                    self.events.text_done(place, part, logprobs);
                }
            }
            Item::FunctionCall(call) => {
                call.status = its_end;
                let place = Place {
                    item_id: &call.id,
                    output_index,
                };
                self.events.arguments_done(place, &call.arguments);
            }
            Item::FunctionCallOutput(_) => {}
        }
        self.events.item_done(output_index, item);
    }

    /// The engine has said all.
    fn finish(&mut self, reason: FinishReason) {
        if self.response.output.is_empty() {
            // Clients look for a message, even if the model said nothing.
            self.open_text();
        }
        self.close(match reason {
            FinishReason::Length => ItemStatus::Incomplete,
            FinishReason::Stop | FinishReason::ToolCalls => ItemStatus::Completed,
        });
        self.finish = Some(reason);
    }

    /// The response gets its last form.
    fn stop(&mut self, status: Status, error: Option<Error>) {
        if self.is_over() {
            return;
        }
        self.begin(None);
        self.close(ItemStatus::Incomplete);
        self.progress = Progress::Over;
        let reasoning_tokens = self.reasoning_tokens;
        self.response.usage = self.usage.map(|usage| Usage::new(usage, reasoning_tokens));
        self.response.status = status;
        self.response.error = error;
        self.response.incomplete_details =
            (status == Status::Incomplete).then_some(IncompleteDetails::MaxOutputTokens);
        let kind = match status {
            Status::Failed => "response.failed",
            // OpenAI's clients know no event for a response that was cancelled.
            Status::Incomplete | Status::Cancelled => "response.incomplete",
            Status::Completed | Status::InProgress => "response.completed",
        };
        self.events.response(kind, &self.response);
    }

    pub(super) fn fail(&mut self, problem: &Problem) {
        self.stop(Status::Failed, Some(problem.into()));
    }

    pub(super) fn succeed(&mut self) {
        match self.finish {
            None => self.fail(&Problem::engine("the engine's answer has no end")),
            Some(FinishReason::Length) => self.stop(Status::Incomplete, None),
            Some(FinishReason::Stop | FinishReason::ToolCalls) => self.stop(Status::Completed, None),
        }
    }
}

fn tokens(logprobs: Option<Value>) -> Result<Vec<Token>, Problem> {
    match logprobs {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(logprobs) => serde_json::from_value(logprobs)
            .map(|Logprobs { content }| content)
            .map_err(|error| {
                Problem::engine(format!("the engine's log probabilities cannot be read: {error}"))
            }),
    }
}
