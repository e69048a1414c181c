//! What makes no sense, on a connection to a member.

use super::lab::Lab;
use super::parts::{key, node_id};
use crate::mesh::core::{Goodbye, Part};
use crate::mesh::gossip;
use crate::mesh::id::{Role, TokenId, UnixSeconds};
use crate::mesh::roster::{Act, Digest, SignedAct};
use crate::mesh::wire::{Control, Table};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// Two nodes, and client 5 of the first.
fn lab() -> Lab {
    let mut lab = Lab::of(2);
    let token = lab.invite(0, Role::Client);
    lab.start(5, Part::Client, Some(&token));
    lab.run_for(SOON);
    lab
}

fn table() -> Control {
    Control::Table(Table {
        alive: vec![node_id(9)],
        states: Vec::new(),
    })
}

fn of_servers() -> [Control; 4] {
    [
        Control::Gossip(gossip::Message::Wanted(Vec::new())),
        Control::Roster(Digest([0; 32])),
        Control::ActIds(Vec::new()),
        Control::Acts(Vec::new()),
    ]
}

#[test]
fn a_client_that_speaks_like_a_server_is_closed() {
    for message in of_servers() {
        let mut lab = lab();
        let before = lab.links(0, 5).0;
        lab.say(5, 0, message);
        assert_eq!(lab.goodbyes, [(0, 5, Goodbye::Senseless)]);
        lab.run_for(SOON);
        assert_ne!(lab.links(0, 5).0, before);
    }
}

#[test]
fn nobody_but_clients_is_told_tables() {
    let mut lab = lab();
    lab.say(5, 0, table());
    lab.say(1, 0, table());
    assert_eq!(
        lab.goodbyes,
        [(0, 5, Goodbye::Senseless), (0, 1, Goodbye::Senseless)]
    );
}

#[test]
fn a_server_that_tells_a_client_what_is_for_servers_is_closed() {
    for message in of_servers() {
        let mut lab = lab();
        lab.say(0, 5, message);
        assert_eq!(lab.goodbyes, [(5, 0, Goodbye::Senseless)]);
    }
}

#[test]
fn a_member_that_passes_on_a_forged_act_is_closed() {
    let mut lab = lab();
    let before = lab.digest(0);
    let mesh = lab.core(0).mesh();
    let act = Act::Revoke {
        token: TokenId([7; 16]),
        at: UnixSeconds(1),
    };
    let other_mesh = crate::mesh::id::MeshId(node_id(9));
    assert_ne!(mesh, other_mesh);
    let forged = SignedAct::sign(&key(1), other_mesh, 0, act);
    lab.say(1, 0, Control::Acts(vec![forged; 3]));
    assert_eq!(lab.goodbyes, [(0, 1, Goodbye::Senseless)]);
    assert_eq!(lab.digest(0), before);
}

#[test]
fn acts_of_strangers_wait_and_change_nothing() {
    let mut lab = lab();
    let (before, mesh) = (lab.digest(0), lab.core(0).mesh());
    let act = Act::Remove {
        subject: node_id(0),
        generation: 0,
        stand: Vec::new(),
        at: UnixSeconds(1),
    };
    let act = SignedAct::sign(&key(9), mesh, 0, act);
    lab.say(1, 0, Control::Acts(vec![act]));
    assert_eq!(lab.goodbyes, []);
    assert_eq!(lab.digest(0), before);
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 1]);
}

#[test]
fn packets_of_clients_are_not_heard() {
    let mut lab = lab();
    let (now, link) = (lab.now, lab.core(0).link_to(node_id(5)).unwrap());
    for length in [0, 1, 100, 1_100, 2_000] {
        lab.core(0).packet(now, link, &vec![0; length]);
        lab.drain(0);
    }
    assert_eq!(lab.sees(0), [1]);
    assert_eq!(lab.goodbyes, []);
}

#[test]
fn a_table_with_a_state_that_nobody_signed_tells_nothing() {
    let mut lab = lab();
    let mut foreign = Lab::new();
    foreign.start(9, Part::Server, None);
    foreign.run_for(SOON);
    // Signed for another mesh.
    let state = crate::mesh::state::NodeState {
        name: "made up".to_owned(),
        ..lab.nodes[&5].core.view().nodes[0].state.clone()
    };
    let forged = state.sign(crate::mesh::id::MeshId(node_id(9)), &key(9));
    let table = Table {
        alive: vec![node_id(0), node_id(1), node_id(9)],
        states: vec![forged],
    };
    lab.say(0, 5, Control::Table(table));
    assert_eq!(lab.sees(5), [0, 1]);
    let view = lab.nodes[&5].core.view();
    assert!(view.nodes.iter().all(|seen| seen.state.name != "made up"));
}

#[test]
fn what_comes_with_the_last_breath_of_a_connection_is_not_heard() {
    let mut lab = lab();
    let (now, link) = (lab.now, lab.core(0).link_to(node_id(1)).unwrap());
    lab.core(0).unlinked(now, link);
    lab.core(0).control(now, link, table());
    lab.core(0).packet(now, link, &[0; 40]);
    lab.drain(0);
    assert_eq!(lab.goodbyes, []);
}
