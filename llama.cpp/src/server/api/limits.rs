//! Upper bounds of what a request may contain.
//!
//! They are far above what any client sends: they keep one request from taking the machine's memory.

/// Bytes of a request's body. A million tokens of text are 4 MB, as a list of tokens 7 MB.
pub const BODY_BYTES: usize = 32 << 20;
/// Messages of a chat.
pub const MESSAGES: usize = 65_536;
/// Parts of one message's content.
pub const CONTENT_PARTS: usize = 4_096;
/// Tool calls in one message.
pub const TOOL_CALLS: usize = 1_024;
/// Tools of a request.
pub const TOOLS: usize = 512;
/// Bytes of a tool's name.
pub const TOOL_NAME_BYTES: usize = 256;
/// Stop texts.
pub const STOPS: usize = 16;
/// Bytes of one stop text: as much of an answer can be held back.
pub const STOP_BYTES: usize = 4_096;
/// Choices of one request: prompts × `n`.
pub const CHOICES: usize = 128;
/// Texts or token lists of one embeddings request; OpenAI's number.
pub const INPUTS: usize = 2_048;
/// Tokens of one prompt or input.
pub const TOKENS: usize = 4 << 20;
/// Entries of `logit_bias`.
pub const LOGIT_BIASES: usize = 10_000;
/// Alternatives that log probabilities are reported for.
pub const TOP_LOGPROBS: i64 = 20;
/// Tokens that the penalties look back at.
pub const REPEAT_LAST_N: i64 = 1 << 20;
