//! What the user of this daemon wants of the mesh.

use crate::manage::{
    Command, CreatedToken, DroppedModel, LoadedModel, Member, Members, Refusal, Reply, RevokedToken,
    Stopping, TokenRequest,
};
use crate::mesh::core::{MemberSeen, Wrong};
use crate::mesh::id::{Role, TokenId};
use crate::mesh::token::Token;
use crate::mesh::{Invitation, Mesh};
use hyper::StatusCode;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::sync::mpsc;

/// For whom a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum LoadedFor {
    /// This machine's user.
    User,
    /// The mesh, which lacks it.
    Mesh,
}

/// What the user wants of this machine's models; who owns them answers.
#[derive(Debug)]
pub(in crate::daemon) enum ModelOrder {
    /// Serve this one, too.
    Load {
        /// Words for it.
        model: String,
        /// For whom.
        why: LoadedFor,
        /// Its name.
        reply: Reply<LoadedModel>,
    },
    /// Serve this one no more.
    Drop {
        /// Its name.
        model: String,
        /// Its name.
        reply: Reply<DroppedModel>,
    },
}

impl ModelOrder {
    /// Says no.
    pub(in crate::daemon) fn refuse(self, refusal: Refusal) {
        // Who asked may be gone.
        let _ = match self {
            Self::Load { reply, .. } => reply.send(Err(refusal)).is_ok(),
            Self::Drop { reply, .. } => reply.send(Err(refusal)).is_ok(),
        };
    }
}

/// Does what comes, one after the other.
pub(super) async fn obey(
    mesh: Option<Mesh>,
    mut orders: mpsc::Receiver<Command>,
    models: mpsc::Sender<ModelOrder>,
    stop: mpsc::Sender<()>,
) {
    while let Some(order) = orders.recv().await {
        // Whoever asked may be gone: then nobody wants the answer.
        match order {
            Command::CreateToken { wanted, reply } => {
                let _ = reply.send(create(mesh.as_ref(), wanted).await);
            }
            Command::RevokeToken { token, reply } => {
                let _ = reply.send(revoke(mesh.as_ref(), &token).await);
            }
            Command::Kick { node, reply } => {
                let _ = reply.send(kick(mesh.as_ref(), node).await);
            }
            Command::Members { reply } => {
                let _ = reply.send(members(mesh.as_ref()).await);
            }
            Command::Load { model, reply } => {
                // The daemon ends: nobody is answered.
                let _ = models
                    .send(ModelOrder::Load {
                        model,
                        why: LoadedFor::User,
                        reply,
                    })
                    .await;
            }
            Command::Drop { model, reply } => {
                let _ = models.send(ModelOrder::Drop { model, reply }).await;
            }
            Command::Stop { reply } => {
                let _ = reply.send(Ok(Stopping {}));
                // Somebody was faster.
                let _ = stop.try_send(());
            }
        }
    }
}

fn in_mesh(mesh: Option<&Mesh>) -> Result<&Mesh, Refusal> {
    mesh.ok_or_else(|| {
        Refusal::new(
            StatusCode::CONFLICT,
            "no_mesh",
            "this mesh-llm serves its machine alone: start it without --no-mesh",
        )
    })
}

fn refusal(wrong: &Wrong) -> Refusal {
    let (status, code) = match wrong {
        Wrong::MayNot(_) => (StatusCode::FORBIDDEN, "not_allowed"),
        Wrong::NotIn => (StatusCode::SERVICE_UNAVAILABLE, "not_joined"),
        Wrong::Nobody(_) => (StatusCode::NOT_FOUND, "no_such_member"),
        Wrong::Several(_) => (StatusCode::CONFLICT, "ambiguous_member"),
        Wrong::Roster(_) => (StatusCode::CONFLICT, "refused"),
        Wrong::TooLong(_) => (StatusCode::BAD_REQUEST, "too_long"),
    };
    Refusal::new(status, code, wrong.to_string())
}

async fn create(mesh: Option<&Mesh>, wanted: TokenRequest) -> Result<CreatedToken, Refusal> {
    let mesh = in_mesh(mesh)?;
    let uses = wanted.uses.map(|uses| {
        NonZeroU32::new(uses).ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "invalid_value",
                "a token that nobody may use lets nobody in: give it 1 use at least",
            )
        })
    });
    let invitation = Invitation {
        role: wanted.role,
        expires_in: wanted.expires_seconds.map(Duration::from_secs),
        uses: uses.transpose()?,
        models: wanted.models.filter(|models| !models.is_empty()),
    };
    let token = mesh.invite(invitation).await.map_err(|wrong| refusal(&wrong))?;
    Ok(CreatedToken {
        id: token.ids().last().map(ToString::to_string).unwrap_or_default(),
        role: wanted.role,
        expires_at: token.rights().expires.map(|at| at.0),
        token: token.to_string(),
    })
}

async fn revoke(mesh: Option<&Mesh>, words: &str) -> Result<RevokedToken, Refusal> {
    let mesh = in_mesh(mesh)?;
    let wrong = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_token", message);
    let id: TokenId = match words.parse::<TokenId>() {
        Ok(id) => id,
        Err(no_id) => match words.parse::<Token>() {
            // The last block's: whoever restricted a token revokes that, not the whole one.
            Ok(token) => token.ids().last().copied().ok_or_else(|| wrong(no_id))?,
            Err(_) => return Err(wrong(no_id)),
        },
    };
    mesh.revoke(id).await.map_err(|wrong| refusal(&wrong))?;
    Ok(RevokedToken { id: id.to_string() })
}

async fn kick(mesh: Option<&Mesh>, node: String) -> Result<Member, Refusal> {
    let mesh = in_mesh(mesh)?;
    let before = mesh.members().await;
    let node = mesh.kick(node).await.map_err(|wrong| refusal(&wrong))?;
    let member = before.into_iter().find(|member| member.node == node);
    Ok(match member {
        Some(member) => shown(&member),
        // A client, which is in nobody's list.
        None => Member {
            id: node.to_string(),
            name: None,
            role: Role::Client,
            admitted_by: String::new(),
            since: 0,
            alive: false,
        },
    })
}

async fn members(mesh: Option<&Mesh>) -> Result<Members, Refusal> {
    let members = in_mesh(mesh)?.members().await;
    Ok(Members {
        members: members.iter().map(shown).collect(),
    })
}

fn shown(member: &MemberSeen) -> Member {
    Member {
        id: member.node.to_string(),
        name: member.name.clone(),
        role: member.role,
        admitted_by: member.admitted_by.to_string(),
        since: member.since.0,
        alive: member.is_alive,
    }
}
