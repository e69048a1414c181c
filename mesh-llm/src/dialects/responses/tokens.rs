//! How likely tokens were. The engine tells it of all tokens of an answer, those of thoughts, of calls
//! and of marks between them too; an item has its own.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A token, and what could have been in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    token: String,
    bytes: Vec<u8>,
    logprob: f64,
    top_logprobs: Vec<Candidate>,
}

/// A token that could be chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    token: String,
    bytes: Vec<u8>,
    logprob: f64,
}

/// A choice's `logprobs` in the engine's answer.
#[derive(Debug, Deserialize)]
pub(super) struct Logprobs {
    pub(super) content: Vec<Token>,
}

/// All tokens of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    all: Vec<Token>,
    bytes: Vec<u8>,
    /// Where in `bytes` each token ends.
    ends: Vec<usize>,
    /// Up to here they are an earlier item's.
    taken: usize,
}

impl Tokens {
    pub(super) fn push(&mut self, tokens: Vec<Token>) {
        for token in tokens {
            self.bytes.extend_from_slice(&token.bytes);
            self.ends.push(self.bytes.len());
            self.all.push(token);
        }
    }

    /// The tokens of which the next item's text is made; none where they are not known, or where they
    /// say something else.
    pub(super) fn take(&mut self, text: &str) -> &[Token] {
        let Some(Range { start, end }) = self.find(text.as_bytes()) else {
            return &[];
        };
        self.taken = end;
        let first = self.ends.partition_point(|its_end| *its_end <= start);
        let last = self.ends.partition_point(|its_end| *its_end < end);
        &self.all[first..=last]
    }

    fn find(&self, text: &[u8]) -> Option<Range<usize>> {
        let rest = self.bytes.get(self.taken..)?;
        if text.is_empty() || rest.len() < text.len() {
            return None;
        }
        let at = rest.windows(text.len()).position(|window| window == text)?;
        let start = self.taken + at;
        Some(start..start + text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(texts: &[&str]) -> Tokens {
        let mut tokens = Tokens::default();
        tokens.push(
            texts
                .iter()
                .map(|text| Token {
                    token: (*text).to_owned(),
                    bytes: text.as_bytes().to_owned(),
                    logprob: -0.5,
                    top_logprobs: Vec::new(),
                })
                .collect(),
        );
        tokens
    }

    fn taken<'a>(tokens: &'a mut Tokens, text: &str) -> Vec<&'a str> {
        tokens
            .take(text)
            .iter()
            .map(|token| token.token.as_str())
            .collect()
    }

    #[test]
    fn an_item_has_its_own_tokens() {
        let mut all = tokens(&["<think>", "a", " b", "</think>", "\n\na", " b", ".", ""]);
        assert_eq!(taken(&mut all, "a b"), ["a", " b"]);
        assert_eq!(taken(&mut all, "a b."), ["\n\na", " b", "."]);
        assert!(taken(&mut all, "a").is_empty());
    }

    #[test]
    fn what_was_not_written_has_no_tokens() {
        assert!(taken(&mut tokens(&["a"]), "b").is_empty());
        assert!(taken(&mut tokens(&["a"]), "").is_empty());
        assert!(taken(&mut Tokens::default(), "a").is_empty());
    }
}
