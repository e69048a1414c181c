//! Log probabilities, in the shapes of chat and of text completion.

use serde::{Serialize, Serializer, ser::SerializeMap};

/// A token, and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token that was chosen.
    pub chosen: Candidate,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<Candidate>,
}

/// A token that could be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// What OpenAI sends for tokens that cannot be: JSON has no infinity.
const IMPOSSIBLE: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    if logprob.is_nan() {
        IMPOSSIBLE
    } else {
        logprob.clamp(IMPOSSIBLE, 0.0)
    }
}

/// A chat choice's `logprobs`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<ChatCandidate>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChatCandidate {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// Those of these tokens.
    pub fn new(tokens: Vec<TokenLogprob>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let content = tokens
            .into_iter()
            .map(|token| ChatToken {
                token: text(&token.chosen.bytes),
                logprob: finite(token.chosen.logprob),
                bytes: token.chosen.bytes,
                top_logprobs: token
                    .top
                    .into_iter()
                    .map(|top| ChatCandidate {
                        token: text(&top.bytes),
                        logprob: finite(top.logprob),
                        bytes: top.bytes,
                    })
                    .collect(),
            })
            .collect();
        ChatLogprobs {
            content,
            refusal: None,
        }
    }
}

/// A text completion's `logprobs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<TopLogprobs>>,
    text_offset: Vec<usize>,
}

/// An object from tokens to their log probabilities, likeliest first.
#[derive(Debug, Clone, PartialEq)]
struct TopLogprobs(Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

/// Builds a text completion's `logprobs`, all at once or in the pieces of a stream.
#[derive(Debug, Default)]
pub struct CompletionLogprobsBuilder {
    // Characters that began before the next token.
    offset: usize,
    pending: CompletionLogprobs,
}

impl CompletionLogprobsBuilder {
    /// Adds the first token of an echoed prompt, which nothing predicts.
    pub fn push_unpredicted(&mut self, bytes: &[u8]) {
        self.push_token(bytes);
        self.pending.token_logprobs.push(None);
        self.pending.top_logprobs.push(None);
    }

    /// Adds a token.
    pub fn push(&mut self, token: &TokenLogprob) {
        self.push_token(&token.chosen.bytes);
        self.pending
            .token_logprobs
            .push(Some(finite(token.chosen.logprob)));
        let mut top: Vec<(String, f32)> = Vec::with_capacity(token.top.len() + 1);
        // The token that was chosen is always among them, as with OpenAI.
        for candidate in token.top.iter().chain([&token.chosen]) {
            let text = legacy_text(&candidate.bytes);
            // Different tokens can have the same text, and an object has each name once.
            if !top.iter().any(|(other, _)| *other == text) {
                top.push((text, finite(candidate.logprob)));
            }
        }
        self.pending.top_logprobs.push(Some(TopLogprobs(top)));
    }

    fn push_token(&mut self, bytes: &[u8]) {
        self.pending.tokens.push(legacy_text(bytes));
        self.pending.text_offset.push(self.offset);
        self.offset += bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
    }

    /// What was added since the last time.
    pub fn take(&mut self) -> CompletionLogprobs {
        std::mem::take(&mut self.pending)
    }
}

/// A token as the legacy API writes it: bytes that are no whole characters as `bytes:\xe2\x82`.
fn legacy_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes
            .iter()
            .fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(bytes: &[u8], logprob: f32) -> Candidate {
        Candidate {
            bytes: bytes.to_vec(),
            logprob,
        }
    }

    fn token(bytes: &[u8], logprob: f32, top: &[(&[u8], f32)]) -> TokenLogprob {
        TokenLogprob {
            chosen: candidate(bytes, logprob),
            top: top
                .iter()
                .map(|(bytes, logprob)| candidate(bytes, *logprob))
                .collect(),
        }
    }

    #[test]
    fn chat_has_tokens_with_their_bytes() {
        let logprobs = ChatLogprobs::new(vec![token(b"\xe2\x82", -0.5, &[(b"Hi", -0.25)])]);
        assert_eq!(
            serde_json::to_string(&logprobs).unwrap(),
            "{\"content\":[{\"token\":\"\u{FFFD}\",\"logprob\":-0.5,\"bytes\":[226,130],\
             \"top_logprobs\":[{\"token\":\"Hi\",\"logprob\":-0.25,\"bytes\":[72,105]}]}],\
             \"refusal\":null}"
        );
    }

    #[test]
    fn completions_have_parallel_arrays() {
        let mut builder = CompletionLogprobsBuilder::default();
        builder.push_unpredicted("é".as_bytes());
        builder.push(&token(b"b", -1.0, &[(b"a", -0.5), (b"a", -0.75)]));
        assert_eq!(
            serde_json::to_string(&builder.take()).unwrap(),
            r#"{"tokens":["é","b"],"token_logprobs":[null,-1.0],"top_logprobs":[null,{"a":-0.5,"b":-1.0}],"text_offset":[0,1]}"#
        );
        builder.push(&token(b"\xe2\x82", -1.0, &[]));
        builder.push(&token(b"\xac!", -1.0, &[]));
        builder.push(&token(b"x", -1.0, &[]));
        let later = builder.take();
        assert_eq!(later.tokens, ["bytes:\\xe2\\x82", "bytes:\\xac\\x21", "x"]);
        assert_eq!(later.text_offset, [2, 3, 4]);
    }

    #[test]
    fn what_is_impossible_is_a_number_all_the_same() {
        let logprobs = ChatLogprobs::new(vec![token(b"a", f32::NEG_INFINITY, &[(b"b", f32::NAN)])]);
        let json = serde_json::to_value(&logprobs).unwrap();
        assert_eq!(json["content"][0]["logprob"], -9999.0);
        assert_eq!(json["content"][0]["top_logprobs"][0]["logprob"], -9999.0);
    }
}
