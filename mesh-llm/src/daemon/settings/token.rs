//! Where a token is: whoever is let in by it is not to show it to the machine's other users.

use super::Hidden;
use serde::Deserialize;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::str::FromStr;

/// The longest token, with room for what a user pastes around it.
const MOST_TOKEN_BYTES: u64 = 4096;

/// Where a token is. Words that begin with `@` name a file, `-` is standard input, all others are the token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TokenSource {
    /// It was said.
    Said(Hidden),
    /// In a file.
    File(PathBuf),
    /// On standard input.
    StandardInput,
}

/// Words that are no [`TokenSource`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write the token, @FILE for one in a file, or - for one on standard input")]
pub struct BadTokenSource;

impl FromStr for TokenSource {
    type Err = BadTokenSource;

    fn from_str(words: &str) -> Result<Self, BadTokenSource> {
        match words.trim() {
            "" | "@" => Err(BadTokenSource),
            "-" => Ok(Self::StandardInput),
            words => Ok(match words.strip_prefix('@') {
                Some(path) => Self::File(path.into()),
                None => Self::Said(Hidden(words.to_owned())),
            }),
        }
    }
}

impl TryFrom<String> for TokenSource {
    type Error = BadTokenSource;

    fn try_from(words: String) -> Result<Self, BadTokenSource> {
        words.parse()
    }
}

/// Why there is no token where one should be. No error shows a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error(
        "no token can be read from {place}: {cause}; write @FILE for one in a file, - for one on standard input"
    )]
    Unreadable {
        /// From where.
        place: String,
        /// Why not.
        cause: io::Error,
    },
    /// There is nothing, or far too much.
    #[error(
        "{place} holds no token: it should hold the words that `mesh-llm token create` wrote and nothing else"
    )]
    NotOne {
        /// Where.
        place: String,
    },
}

impl TokenSource {
    /// The token. Where it comes on standard input and a person sits there, it is asked for.
    ///
    /// # Errors
    /// Where there is none.
    pub fn read(&self) -> Result<Hidden, TokenError> {
        let stdin = io::stdin();
        if *self == Self::StandardInput && stdin.is_terminal() {
            // Where nobody sees it, the token may still come.
            let _ = write!(io::stderr(), "paste the invite token and press Enter: ");
            let mut line = String::new();
            let mut typed = stdin.lock().take(MOST_TOKEN_BYTES + 1);
            return match typed.read_line(&mut line) {
                Ok(_) => read("the line", line.as_bytes()),
                Err(cause) => Err(TokenError::Unreadable {
                    place: "the terminal".to_owned(),
                    cause,
                }),
            };
        }
        self.read_with(stdin)
    }

    /// The token, which may be read from `standard_input`.
    fn read_with(&self, standard_input: impl Read) -> Result<Hidden, TokenError> {
        match self {
            Self::Said(token) => Ok(token.clone()),
            Self::StandardInput => read("standard input", standard_input),
            Self::File(path) => {
                let place = path.display().to_string();
                match std::fs::File::open(path) {
                    Ok(file) => read(&place, file),
                    Err(cause) => Err(TokenError::Unreadable { place, cause }),
                }
            }
        }
    }
}

fn read(place: &str, from: impl Read) -> Result<Hidden, TokenError> {
    let mut text = String::new();
    let read = from.take(MOST_TOKEN_BYTES + 1).read_to_string(&mut text);
    let place = place.to_owned();
    match read {
        Err(cause) => Err(TokenError::Unreadable { place, cause }),
        Ok(_) => match text.trim() {
            token if token.is_empty() || text.len() as u64 > MOST_TOKEN_BYTES => {
                Err(TokenError::NotOne { place })
            }
            token => Ok(Hidden(token.to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_said_or_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t");
        std::fs::write(&file, "of-file\n").unwrap();
        let read = |words: &str| {
            let source = words.parse::<TokenSource>().unwrap();
            source.read_with("  of-input \n".as_bytes()).map(|token| token.0)
        };
        assert_eq!(read(" said ").unwrap(), "said");
        assert_eq!(read("-").unwrap(), "of-input");
        assert_eq!(read(&format!("@{}", file.display())).unwrap(), "of-file");
        let error = read("@/no/such/file").unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
        for bad in ["", "@", " "] {
            assert_eq!(bad.parse::<TokenSource>(), Err(BadTokenSource));
        }
        for bad in ["".to_owned(), "\n".to_owned(), "x".repeat(5000)] {
            let error = TokenSource::StandardInput.read_with(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, TokenError::NotOne { .. }), "{error}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let source = "secret".parse::<TokenSource>();
        assert!(!format!("{source:?}").contains("secret"));
    }
}
