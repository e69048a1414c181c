//! What is asked. `prompts.json` says how it was made.

use serde::Deserialize;
use serde_json::json;

use crate::support::client::Question;
use crate::support::prompts;

/// Streams at once, at most.
pub const STREAMS: usize = 8;

/// More tokens than any answer that ends by itself has.
const LONGEST: usize = 400;

/// Words of a random prompt.
const RANDOM_WORDS: usize = 12;

/// A kind of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Python: the draft knows nearly all of it.
    Code,
    /// The draft knows the sentences, not the names.
    Stories,
    /// Sentences learned by heart, too short to win much.
    Facts,
    /// Code that was there before, with one function exchanged: copying knows most of it.
    Edits,
    /// Tokens by chance, with a draft that is never right.
    Random,
    /// Code, eight answers at once.
    Streams,
}

#[derive(Debug, Deserialize)]
struct Prompts {
    code: Vec<Vec<String>>,
    stories: Vec<Vec<String>>,
    facts: Vec<Vec<String>>,
    edits: Vec<Vec<String>>,
}

impl Prompts {
    /// # Errors
    /// Where the file was damaged.
    fn read() -> anyhow::Result<Self> {
        Ok(serde_json::from_str(include_str!("../prompts.json"))?)
    }
}

impl Text {
    /// All of them.
    pub const ALL: [Text; 6] = [
        Text::Code,
        Text::Stories,
        Text::Facts,
        Text::Edits,
        Text::Random,
        Text::Streams,
    ];

    /// As cases call it.
    pub fn name(self) -> &'static str {
        match self {
            Text::Code => "code",
            Text::Stories => "stories",
            Text::Facts => "facts",
            Text::Edits => "edits",
            Text::Random => "random",
            Text::Streams => "streams8",
        }
    }

    /// Questions to ask at most, one after the other, quickly and in full; of streams: at once.
    pub fn count(self) -> (usize, usize) {
        match self {
            Text::Code | Text::Stories => (2, 4),
            Text::Facts => (4, 8),
            Text::Edits | Text::Random => (1, 2),
            Text::Streams => (STREAMS, STREAMS),
        }
    }

    /// The question of this number, for an answer of at most so many tokens; random ones have as many.
    ///
    /// # Errors
    /// Where there are no prompts.
    pub fn question(self, number: usize, tokens: usize) -> anyhow::Result<Question> {
        let prompts = Prompts::read()?;
        let of = match self {
            Text::Code | Text::Streams => prompts.code,
            Text::Stories => prompts.stories,
            Text::Facts => prompts.facts,
            Text::Edits => prompts.edits,
            Text::Random => return Ok(random(number, tokens)),
        };
        let contents = &of[number % of.len()];
        let messages: Vec<_> = ["user", "assistant"]
            .into_iter()
            .cycle()
            .zip(contents)
            .map(|(role, content)| json!({"role": role, "content": content}))
            .collect();
        Ok(Question::of_body(&json!({
            "messages": messages,
            "max_tokens": tokens.min(LONGEST),
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        })))
    }
}

/// As hot as it gets, among all tokens.
fn random(number: usize, tokens: usize) -> Question {
    Question::of_body(&json!({
        "messages": [{"role": "user", "content": prompts::text(number, RANDOM_WORDS)}],
        "max_tokens": tokens,
        "ignore_eos": true,
        "temperature": 2,
        "top_k": 0,
        "top_p": 1,
        "min_p": 0,
        "seed": number,
        "stream": true,
        "stream_options": {"include_usage": true},
    }))
}
