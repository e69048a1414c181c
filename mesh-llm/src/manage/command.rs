//! What the daemon can be told to do. Each order carries the way back for its answer.

use super::status::{Member, Role};
use crate::dialects::Problem;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::sync::oneshot;

/// The way back; whoever dropped its other end does not want to know any more.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// An order.
#[derive(Debug)]
pub enum Command {
    /// Make a token, by which others join.
    CreateToken {
        /// What it allows.
        wanted: TokenRequest,
        /// The token.
        reply: Reply<CreatedToken>,
    },
    /// Let nobody in by a token any more.
    RevokeToken {
        /// Its id, or the whole token: a secret.
        token: String,
        /// What was revoked.
        reply: Reply<RevokedToken>,
    },
    /// Put a member out of the mesh.
    Kick {
        /// Its id, at least the first 6 digits of one that no other id begins with, or its name.
        node: String,
        /// Who it was.
        reply: Reply<Member>,
    },
    /// Tell who may take part.
    Members {
        /// They.
        reply: Reply<Members>,
    },
    /// Serve a model, too.
    Load {
        /// Words for it.
        model: String,
        /// Its name.
        reply: Reply<LoadedModel>,
    },
    /// Serve a model no more.
    Drop {
        /// Its name.
        model: String,
        /// Its name.
        reply: Reply<DroppedModel>,
    },
    /// End the daemon, as a signal does.
    Stop {
        /// That it will.
        reply: Reply<Stopping>,
    },
}

/// What a token is to allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What those are who join by it.
    pub role: Role,
    /// For how long, from now; none: for ever. A request must say so: nobody is to forget it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub expires_seconds: Option<u64>,
    /// How often; none: as often as somebody likes.
    #[serde(default)]
    pub uses: Option<u32>,
    /// The models that they may use or serve; none: all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
}

/// A new token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// What it is revoked by.
    pub id: String,
    /// The token itself: a secret.
    pub token: String,
    /// What those are who join by it.
    pub role: Role,
    /// Until when, in seconds since 1970; none: for ever.
    pub expires_at: Option<u64>,
}

/// Without the token: it must not get into logs.
impl fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedToken")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A token that lets nobody in any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedToken {
    /// Its id.
    pub id: String,
}

/// Who may take part in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Each of them.
    pub members: Vec<Member>,
}

/// What is to be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRequest {
    /// Words for it, as for `--model`.
    pub model: String,
}

/// A model that is being downloaded, loaded, and served from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Its id at the API.
    pub name: String,
}

/// A model that finishes what it answers, and is served no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedModel {
    /// Its id at the API.
    pub name: String,
}

/// The daemon is about to end, once what it has begun with is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {}

/// An order that is understood and not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The reason in one word, for programs: `no_such_member`.
    pub code: String,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl Refusal {
    /// One with these words.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let problem = match refusal.status.is_server_error() {
            true => Problem::engine(refusal.message),
            false => Problem::invalid(None, refusal.message),
        };
        Problem {
            status: refusal.status.as_u16(),
            code: Some(refusal.code),
            ..problem
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_so_gets_a_token_that_lasts_for_ever() {
        let read = |json: &str| serde_json::from_str::<TokenRequest>(json);
        assert_eq!(
            read(r#"{"role":"node","expires_seconds":null}"#).unwrap(),
            TokenRequest {
                role: Role::Node,
                expires_seconds: None,
                uses: None,
                models: None,
            }
        );
        let error = read(r#"{"role":"node"}"#).unwrap_err().to_string();
        assert!(error.contains("expires_seconds"), "{error}");
        assert!(read(r#"{"role":"owner","expires_seconds":1}"#).is_err());
        assert!(read(r#"{"role":"node","expires_seconds":1,"expires":2}"#).is_err());
    }

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let created = CreatedToken {
            id: "ab".into(),
            token: "mesh-secret".into(),
            role: Role::Client,
            expires_at: None,
        };
        assert!(!format!("{created:?}").contains("secret"));
    }

    #[test]
    fn a_refusal_is_openai_s_error() {
        for (status, kind) in [
            (StatusCode::NOT_FOUND, "invalid_request_error"),
            (StatusCode::SERVICE_UNAVAILABLE, "server_error"),
        ] {
            let problem = Problem::from(Refusal::new(status, "no_such_member", "who?"));
            assert_eq!(problem.status, status);
            assert_eq!(problem.openai()["error"]["type"], kind);
            assert_eq!(problem.openai()["error"]["code"], "no_such_member");
        }
    }
}
