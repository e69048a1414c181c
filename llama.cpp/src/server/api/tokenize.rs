//! `POST /tokenize` and `POST /detokenize`, as llama.cpp's server has them.

use serde::{Deserialize, Serialize};

use super::{
    ApiError,
    json::{self, Bounded},
    limits,
};

/// A checked request to `/tokenize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizeRequest {
    /// The text.
    pub content: String,
    /// Add the tokens that begin and end a text.
    pub add_special: bool,
    /// Read special tokens in the text as such.
    pub parse_special: bool,
    /// What is reported of a token.
    pub report: Report,
}

/// What `/tokenize` reports of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Its id.
    Ids,
    /// Its id and its text.
    Pieces,
}

#[derive(Debug, Deserialize)]
struct TokenizeFields {
    content: Option<String>,
    add_special: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

/// Reads and checks a request to `/tokenize`.
pub fn parse_tokenize(body: &[u8]) -> Result<TokenizeRequest, ApiError> {
    let fields: TokenizeFields = json::from_slice(body)?;
    Ok(TokenizeRequest {
        content: fields.content.ok_or_else(|| ApiError::missing("content"))?,
        add_special: fields.add_special.unwrap_or(false),
        parse_special: fields.parse_special.unwrap_or(true),
        report: if fields.with_pieces == Some(true) {
            Report::Pieces
        } else {
            Report::Ids
        },
    })
}

/// What `/tokenize` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TokenizeResponse {
    /// The ids.
    Ids {
        /// The tokens.
        tokens: Vec<i32>,
    },
    /// Ids with text.
    Pieces {
        /// The tokens.
        tokens: Vec<TokenPiece>,
    },
}

/// A token with its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenPiece {
    id: i32,
    piece: Piece,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

impl TokenPiece {
    /// A token with its bytes: text where they are whole characters.
    pub fn new(id: i32, bytes: Vec<u8>) -> Self {
        let piece =
            String::from_utf8(bytes).map_or_else(|error| Piece::Bytes(error.into_bytes()), Piece::Text);
        TokenPiece { id, piece }
    }
}

#[derive(Debug, Deserialize)]
struct DetokenizeFields {
    tokens: Option<Bounded<i32, { limits::TOKENS }>>,
}

/// Reads and checks a request to `/detokenize`: the tokens, not yet known to exist.
pub fn parse_detokenize(body: &[u8]) -> Result<Vec<i32>, ApiError> {
    let fields: DetokenizeFields = json::from_slice(body)?;
    let Bounded(tokens) = fields.tokens.ok_or_else(|| ApiError::missing("tokens"))?;
    Ok(tokens)
}

/// What `/detokenize` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DetokenizeResponse {
    /// The text.
    pub content: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_llama_cpps() {
        let request = parse_tokenize(br#"{"content":"Hi"}"#).unwrap();
        assert_eq!(
            request,
            TokenizeRequest {
                content: "Hi".into(),
                add_special: false,
                parse_special: true,
                report: Report::Ids
            }
        );
    }

    #[test]
    fn pieces_that_are_no_text_are_bytes() {
        let response = TokenizeResponse::Pieces {
            tokens: vec![
                TokenPiece::new(1, b"a".to_vec()),
                TokenPiece::new(2, vec![0xe2, 0x82]),
            ],
        };
        assert_eq!(
            serde_json::to_string(&response).unwrap(),
            r#"{"tokens":[{"id":1,"piece":"a"},{"id":2,"piece":[226,130]}]}"#
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let param = |result: Result<(), ApiError>| result.unwrap_err().param.unwrap();
        assert_eq!(param(parse_tokenize(b"{}").map(drop)), "content");
        assert_eq!(param(parse_tokenize(br#"{"content":[1]}"#).map(drop)), "content");
        assert_eq!(param(parse_detokenize(b"{}").map(drop)), "tokens");
        assert_eq!(
            param(parse_detokenize(br#"{"tokens":[1,"a"]}"#).map(drop)),
            "tokens[1]"
        );
    }
}
