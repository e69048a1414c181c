//! What the user of a node may do.

use super::lab::Lab;
use super::parts::{key, node_id};
use crate::mesh::core::{Part, Wrong};
use crate::mesh::id::{NodeId, Role, TokenId};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

fn kick(lab: &mut Lab, by: usize, who: &str) -> Result<NodeId, Wrong> {
    let (now, unix) = (lab.now, lab.unix());
    let kicked = lab.core(by).kick(now, who, unix);
    lab.drain(by);
    kicked
}

#[test]
fn members_are_listed_with_who_let_them_in() {
    let mut lab = Lab::of(2);
    let token = lab.invite(1, Role::Worker);
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(SOON);
    lab.stop(0);
    lab.run_for(SOON);
    let members = lab.core(1).members();
    let listed = |number: usize| {
        members
            .iter()
            .find(|member| member.node == node_id(number))
            .unwrap()
    };
    assert_eq!(members.len(), 3);
    assert_eq!((listed(0).role, listed(0).admitted_by), (Role::Node, node_id(0)));
    assert_eq!((listed(1).role, listed(1).admitted_by), (Role::Node, node_id(0)));
    assert_eq!(
        (listed(2).role, listed(2).admitted_by),
        (Role::Worker, node_id(1))
    );
    assert_eq!(
        [0, 1, 2].map(|number| listed(number).is_alive),
        [false, true, true]
    );
    assert_eq!(listed(1).name.as_deref(), Some("host-1"));
    assert_eq!(listed(2).name.as_deref(), Some("host-2"));
}

#[test]
fn a_member_is_meant_by_its_name() {
    let mut lab = Lab::of(3);
    assert_eq!(kick(&mut lab, 0, "host-2"), Ok(node_id(2)));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 1]);
}

#[test]
fn a_member_is_meant_by_the_beginning_of_its_id() {
    let mut lab = Lab::of(3);
    let id = node_id(2).to_string();
    assert_eq!(
        kick(&mut lab, 0, &id[..5]),
        Err(Wrong::Nobody(id[..5].to_owned()))
    );
    assert_eq!(kick(&mut lab, 0, &id[..6].to_uppercase()), Ok(node_id(2)));
}

#[test]
fn a_name_of_two_is_ambiguous() {
    let mut lab = Lab::of(3);
    for node in [1, 2] {
        lab.rename(node, "twin");
    }
    lab.run_for(SOON);
    assert_eq!(kick(&mut lab, 0, "twin"), Err(Wrong::Several("twin".to_owned())));
    lab.assert_see_each_other(&[0, 1, 2]);
}

#[test]
fn nobody_hides_behind_the_id_of_another() {
    let mut lab = Lab::of(3);
    let id = node_id(2).to_string();
    lab.rename(1, &id);
    lab.run_for(SOON);
    assert_eq!(kick(&mut lab, 0, &id), Ok(node_id(2)));
}

#[test]
fn an_unknown_name_is_nobodys() {
    let mut lab = Lab::of(2);
    for who in ["", "host", "host-9", "0123456789"] {
        assert_eq!(kick(&mut lab, 0, who), Err(Wrong::Nobody(who.to_owned())));
    }
}

#[test]
fn only_nodes_invite_remove_and_revoke() {
    let mut lab = Lab::of(1);
    let worker = lab.invite(0, Role::Worker);
    let client = lab.invite(0, Role::Client);
    lab.start(1, Part::Server, Some(&worker));
    lab.start(2, Part::Client, Some(&client));
    lab.run_for(SOON);
    let (now, unix) = (lab.now, lab.unix());
    for (node, role) in [(1, Role::Worker), (2, Role::Client)] {
        let core = lab.core(node);
        let may_not = Wrong::MayNot(role);
        let grant = worker.grant().clone();
        assert_eq!(core.invite(grant, key(9)).unwrap_err(), may_not);
        assert_eq!(core.revoke(now, TokenId([0; 16]), unix), Err(may_not.clone()));
        assert_eq!(core.kick(now, "host-0", unix), Err(may_not));
    }
}

#[test]
fn whoever_is_not_in_yet_may_do_nothing() {
    let mut lab = Lab::of(1);
    let token = lab.invite(0, Role::Node);
    lab.stop(0);
    lab.start(1, Part::Server, Some(&token));
    assert_eq!(kick(&mut lab, 1, "host-0"), Err(Wrong::NotIn));
}

#[test]
fn a_contact_without_addresses_is_called_by_its_name() {
    let mut lab = Lab::of(1);
    let token = lab.invite_with(0, Role::Node, |grant| grant.contacts[0].addresses.clear());
    lab.start(1, Part::Server, Some(&token));
    let contact = lab.core(1).contact(node_id(0)).unwrap();
    assert!(contact.addresses.is_empty());
    lab.run_for(SOON);
    assert!(lab.calls >= 1);
}
