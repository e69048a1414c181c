//! Tells what a token allows, which nobody has to be asked for.

use super::{Error, Out, date, short};
use crate::daemon::settings::Hidden;
use crate::mesh::id::UnixSeconds;
use crate::mesh::token::Token;
use serde::Serialize;

/// A token in words; without what makes it one.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    mesh: String,
    issuer: String,
    role: &'static str,
    expires_at: Option<u64>,
    is_expired: bool,
    uses: Option<u32>,
    models: Option<Vec<String>>,
    restrictions: usize,
    addresses: Vec<String>,
}

/// Shows what `token` allows.
pub(super) fn inspect(token: &Hidden, out: Out) -> Result<(), Error> {
    let token: Token = token.0.parse()?;
    let shown = Shown::of(&token, UnixSeconds::now());
    let headings = [
        "ID", "ROLE", "EXPIRES", "USES", "MODELS", "MESH", "MADE BY", "CALLS",
    ];
    out.rows(&headings, &[shown], |shown| {
        let expires = shown
            .expires_at
            .and_then(date)
            .unwrap_or_else(|| "never".to_owned());
        vec![
            shown.id.clone(),
            shown.role.to_owned(),
            if shown.is_expired {
                format!("{expires}, which is over")
            } else {
                expires
            },
            shown.uses.map_or("any".to_owned(), |uses| uses.to_string()),
            shown
                .models
                .as_ref()
                .map_or("all".to_owned(), |models| models.join(", ")),
            short(&shown.mesh),
            short(&shown.issuer),
            shown.addresses.join(", "),
        ]
    })?;
    Ok(())
}

impl Shown {
    fn of(token: &Token, now: UnixSeconds) -> Self {
        let (grant, rights, ids) = (token.grant(), token.rights(), token.ids());
        let addresses = grant.contacts.iter().flat_map(|contact| &contact.addresses);
        Self {
            id: ids.last().map(ToString::to_string).unwrap_or_default(),
            mesh: grant.mesh.0.to_string(),
            issuer: grant.issuer.to_string(),
            role: rights.role.word(),
            expires_at: rights.expires.map(|at| at.0),
            is_expired: rights.expires.is_some_and(|at| at <= now),
            uses: rights.uses.map(Into::into),
            models: rights.models,
            restrictions: ids.len().saturating_sub(1),
            addresses: addresses.map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::id::{MeshId, Role};
    use crate::mesh::token::Grant;
    use iroh_base::SecretKey;

    #[test]
    fn what_is_shown_lets_nobody_in() {
        let (key, fresh) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let grant = Grant {
            mesh: MeshId(key.public()),
            issuer: key.public(),
            role: Role::Client,
            expires: Some(UnixSeconds(100)),
            uses: None,
            models: None,
            contacts: Vec::new(),
        };
        let token = Token::issue(&key, grant, fresh).unwrap();
        let shown = serde_json::to_string(&Shown::of(&token, UnixSeconds(100))).unwrap();
        assert!(
            shown.contains(r#""role":"client""#) && shown.contains(r#""is_expired":true"#),
            "{shown}"
        );
        let secret: String = [2; 32].iter().map(|byte: &u8| format!("{byte:02x}")).collect();
        assert!(
            !shown.contains(&secret) && !shown.contains(&token.to_string()),
            "{shown}"
        );
    }
}
