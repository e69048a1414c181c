//! A token as text: `mesh1` and, in base64url without padding, its blocks and the secret half of its last key.

use super::Token;
use super::chain::{Broken, Chain};
use super::content;
use super::limits::MOST_CHARACTERS;
use super::rights::Widened;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use iroh_base::SecretKey;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What every token's text begins with; the digit is the version.
const PREFIX: &str = "mesh1";

/// What those of any version begin with.
const ANY_PREFIX: &str = "mesh";

/// Why a text is no token. None of them shows the text: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is something else.
    #[error(
        "this is no invite token: one begins with `{PREFIX}`; `mesh-llm token create` on a member of the mesh makes one"
    )]
    NoToken,
    /// Its version is not known.
    #[error(
        "this invite token was made by a newer mesh-llm: update mesh-llm on this machine, then use it again"
    )]
    NewerVersion,
    /// There is more than a token can have.
    #[error(
        "this invite token has more than {MOST_CHARACTERS} characters, which none has: copy the token alone, \
         without what stands around it"
    )]
    TooLong,
    /// A character does not belong into it.
    #[error(
        "this invite token has the character {0:?} in it, which none has: copy the token alone, without what \
         stands around it"
    )]
    Stray(char),
    /// The end is missing.
    #[error("this invite token is cut off: copy all of it, it may go on in the next line")]
    CutOff,
    /// It is all there, and something of it is wrong.
    #[error(
        "this invite token is damaged, some of its characters are wrong: copy it again, or ask for a new one"
    )]
    Damaged,
    /// A holder wanted to hand on more than it had.
    #[error(transparent)]
    Widened(#[from] Widened),
}

impl From<Broken> for TokenError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Forged => Self::Damaged,
            Broken::Widened(widened) => Self::Widened(widened),
            Broken::Unknown => Self::NewerVersion,
        }
    }
}

/// What the text holds.
#[derive(Serialize, Deserialize)]
struct Written {
    chain: Chain,
    secret: [u8; 32],
}

impl Token {
    /// How long its text is; all of it is ASCII.
    pub(super) fn characters(&self) -> usize {
        let bytes = self.chain.bytes() + self.secret.to_bytes().len();
        PREFIX.len() + (bytes * 4).div_ceil(3)
    }
}

/// The text that is given out: whoever has it can join.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = content::encode(&Written {
            chain: self.chain.clone(),
            secret: self.secret.to_bytes(),
        });
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(written))
    }
}

/// Reads what was pasted: spaces and line breaks do not count, wherever they are.
impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        // One more says that there are too many, however long the text is.
        let characters = text.chars().filter(|c| !c.is_whitespace());
        let text: String = characters.take(MOST_CHARACTERS + 1).collect();
        let body = body(&text)?;
        if text.chars().count() > MOST_CHARACTERS {
            return Err(TokenError::TooLong);
        }
        let bytes = bytes(body)?;
        let (written, rest) = postcard::take_from_bytes::<Written>(&bytes).map_err(|error| match error {
            postcard::Error::DeserializeUnexpectedEnd => TokenError::CutOff,
            _ => TokenError::Damaged,
        })?;
        if !rest.is_empty() {
            return Err(TokenError::Damaged);
        }
        let secret = SecretKey::from_bytes(&written.secret);
        Ok(Self::from_parts(written.chain, secret)?)
    }
}

/// What stands behind the prefix of a token of this version.
fn body(text: &str) -> Result<&str, TokenError> {
    if let Some(body) = text.strip_prefix(PREFIX) {
        return Ok(body);
    }
    let version = text.strip_prefix(ANY_PREFIX).and_then(|rest| rest.chars().next());
    match version {
        Some('2'..='9') => Err(TokenError::NewerVersion),
        _ => Err(TokenError::NoToken),
    }
}

fn bytes(body: &str) -> Result<Vec<u8>, TokenError> {
    let is_foreign = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if let Some(stray) = body.chars().find(is_foreign) {
        return Err(TokenError::Stray(stray));
    }
    // Only its end can be wrong now: there are too few bits for the last byte, or too many.
    URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::CutOff)
}
