//! Who may take part in the mesh.

use super::{Error, Out, date, plain, short};
use crate::manage::{Client, Member};

/// Lists them.
pub(super) fn list(client: &Client, out: Out) -> Result<(), Error> {
    let members = client.members()?;
    let headings = ["NAME", "ID", "ROLE", "STATE", "SINCE", "LET IN BY"];
    out.rows(&headings, &members, |member| {
        let by = members.iter().find(|other| other.id == member.admitted_by);
        let founder = member.id == member.admitted_by;
        vec![
            member.name.as_deref().map(plain).unwrap_or_default(),
            short(&member.id),
            member.role.to_string(),
            if member.alive { "here" } else { "away" }.to_owned(),
            match founder {
                // Nobody wrote down when.
                true => String::new(),
                false => date(member.since).unwrap_or_default(),
            },
            match by {
                _ if founder => "founder".to_owned(),
                Some(member) => called(member),
                None => short(&member.admitted_by),
            },
        ]
    })?;
    Ok(())
}

/// What people call a member.
pub(super) fn called(member: &Member) -> String {
    match &member.name {
        Some(name) => plain(name),
        None => short(&member.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::Role;

    #[test]
    fn a_member_without_a_name_is_called_by_its_id() {
        let mut member = Member {
            id: "ab".repeat(32),
            name: None,
            role: Role::Node,
            admitted_by: "ab".repeat(32),
            since: 0,
            alive: true,
        };
        assert_eq!(called(&member), "ababababab");
        member.name = Some("shed\n".into());
        assert_eq!(called(&member), "shed\u{fffd}");
        assert_eq!(short("ä"), "ä");
    }
}
