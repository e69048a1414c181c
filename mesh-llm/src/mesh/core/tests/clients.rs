//! Clients: what they are told, and what they cost.

use super::lab::{Lab, QUIET};
use super::parts::node_id;
use crate::mesh::core::Part;
use crate::mesh::id::Role;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// Three nodes, and client 5, which came by the first of them.
fn with_client() -> Lab {
    let mut lab = Lab::of(3);
    let token = lab.invite(0, Role::Client);
    lab.start(5, Part::Client, Some(&token));
    lab.run_for(SOON);
    lab
}

#[test]
fn a_client_sees_all_nodes_and_no_node_counts_it_among_them() {
    let lab = with_client();
    assert_eq!(lab.sees(5), [0, 1, 2]);
    assert_eq!(lab.clients(0), [5]);
    lab.assert_see_each_other(&[0, 1, 2]);
}

#[test]
fn a_client_hears_of_changes() {
    let mut lab = with_client();
    lab.rename(2, "renamed");
    lab.run_for(Duration::from_millis(1500));
    let view = lab.nodes[&5].core.view();
    assert!(view.nodes.iter().any(|seen| seen.state.name == "renamed"));
}

#[test]
fn a_client_hears_of_newcomers_and_departures() {
    let mut lab = with_client();
    let token = lab.invite(1, Role::Node);
    lab.start(3, Part::Server, Some(&token));
    lab.run_for(SOON);
    assert_eq!(lab.sees(5), [0, 1, 2, 3]);
    lab.stop(3);
    lab.run_for(SOON);
    assert_eq!(lab.sees(5), [0, 1, 2]);
    lab.kick(1, 2);
    lab.run_for(Duration::from_millis(100));
    assert_eq!(lab.sees(5), [0, 1]);
}

#[test]
fn a_client_costs_nothing_when_nothing_changes() {
    let mut lab = with_client();
    let heard = lab.nodes[&5].heard;
    lab.run_for(QUIET);
    assert_eq!(lab.nodes[&5].heard, heard);
}

#[test]
fn a_client_leaves_nothing_behind() {
    let mut lab = Lab::of(3);
    let before = lab.digest(0);
    let token = lab.invite(0, Role::Client);
    for client in 5..8 {
        lab.start(client, Part::Client, Some(&token));
    }
    lab.run_for(SOON);
    assert_eq!(lab.clients(0), [5, 6, 7]);
    for client in 5..8 {
        lab.leave(client);
    }
    lab.run_for(SOON);
    assert!(lab.clients(0).is_empty());
    assert_eq!(lab.digest(0), before);
    let is_client = |member: &crate::mesh::core::MemberSeen| member.role == Role::Client;
    assert!(!lab.core(0).members().iter().any(is_client));
}

#[test]
fn a_client_holds_one_connection() {
    let mut lab = with_client();
    let linked = |lab: &Lab| (0..3).filter(|node| lab.links(5, *node).0.is_some()).count();
    assert_eq!(linked(&lab), 1);
    lab.restart(5, Part::Client);
    lab.run_for(SOON);
    assert_eq!(linked(&lab), 1);
}

#[test]
fn a_client_whose_server_dies_goes_to_another() {
    let mut lab = with_client();
    lab.stop(0);
    lab.run_for(Duration::from_secs(30));
    assert_eq!(lab.sees(5), [1, 2]);
    assert_eq!(lab.clients(1).len() + lab.clients(2).len(), 1);
}

#[test]
fn a_client_whose_server_leaves_does_not_see_it_any_more() {
    let mut lab = with_client();
    lab.leave(0);
    lab.run_for(Duration::from_millis(50));
    assert_eq!(lab.sees(5), [1, 2]);
}

#[test]
fn one_servers_narrow_view_does_not_take_away_what_another_told() {
    let mut lab = with_client();
    // A request goes to the second directly, so the client is connected to both.
    let contact = lab.core(5).contact(node_id(1)).unwrap();
    lab.dial(5, contact);
    lab.run_for(SOON);
    assert_eq!(lab.clients(1), [5]);
    lab.cut(0, 1);
    lab.cut(1, 2);
    lab.run_for(Duration::from_secs(20));
    assert!(lab.sees(1).is_empty());
    assert_eq!(lab.sees(5), [0, 1, 2]);
}

#[test]
fn members_are_listed_with_the_clients_of_this_node() {
    let mut lab = with_client();
    let members = lab.core(0).members();
    let client = members.iter().find(|member| member.node == node_id(5)).unwrap();
    assert_eq!((client.role, client.admitted_by), (Role::Client, node_id(0)));
    assert!(client.is_alive);
}

#[test]
fn five_thousand_clients_cost_nodes_nothing_while_nothing_changes() {
    const CLIENTS: std::ops::Range<usize> = 5..5_005;
    let mut lab = Lab::of(3);
    // Events: what anybody sends, the clients included.
    let spent = |lab: &mut Lab| {
        let before = lab.count;
        lab.run_for(Duration::from_secs(20));
        lab.count - before
    };
    let without = spent(&mut lab);
    let token = lab.invite(0, Role::Client);
    for client in CLIENTS {
        lab.start(client, Part::Client, Some(&token));
    }
    lab.run_for(SOON);
    assert_eq!(lab.clients(0).len(), CLIENTS.len());
    let told = lab.nodes[&5_004].heard;
    let with = spent(&mut lab);
    assert!(
        with.abs_diff(without) < without / 20,
        "{with} instead of {without}"
    );
    assert_eq!(lab.nodes[&5_004].heard, told);
    lab.rename(2, "renamed");
    lab.run_for(Duration::from_millis(1_500));
    for client in CLIENTS {
        assert_eq!(lab.nodes[&client].heard, told + 1, "each is told once");
    }
}
