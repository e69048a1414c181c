//! Who is not let in, and what it hears.

use super::lab::Lab;
use super::parts::{key, node_id};
use crate::mesh::core::Core;
use crate::mesh::core::{Part, Start};
use crate::mesh::id::{Boot, MeshId, Role};
use crate::mesh::roster::Roster;
use crate::mesh::token::Token;
use crate::mesh::wire::{Answer, Credential, Hello, RefusedKind, VERSIONS, Versions};
use std::num::NonZeroU32;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// What somebody who has only a token says.
fn hello(mesh: MeshId, part: Part, credential: Credential) -> Hello {
    Hello {
        versions: VERSIONS,
        mesh,
        boot: Boot(1),
        part,
        credential,
    }
}

fn by_token(token: &Token, who: usize, part: Part) -> Hello {
    let sealed = token.seal(node_id(who));
    hello(token.grant().mesh, part, Credential::Token(Box::new(sealed)))
}

/// The refusal of whoever shows this, which must have changed nothing.
#[track_caller]
fn refusal(lab: &mut Lab, at: usize, who: usize, hello: &Hello) -> (RefusedKind, String) {
    let before = lab.digest(at);
    let refused = lab.knock(at, who, hello).unwrap_err();
    assert_eq!(lab.digest(at), before);
    (refused.kind, refused.message)
}

#[track_caller]
fn assert_refused(lab: &mut Lab, at: usize, who: usize, hello: &Hello, kind: RefusedKind, says: &str) {
    let (heard, message) = refusal(lab, at, who, hello);
    assert_eq!(heard, kind, "{message}");
    assert!(message.contains(says), "{message}");
}

#[test]
fn a_token_of_another_mesh_is_refused() {
    let mut lab = Lab::of(2);
    let other = MeshId(node_id(9));
    let mut foreign = Lab::new();
    foreign.start(9, Part::Server, None);
    let token = foreign.invite(9, Role::Node);
    let knock = by_token(&token, 3, Part::Server);
    assert_eq!(knock.mesh, other);
    assert_refused(&mut lab, 0, 3, &knock, RefusedKind::Credential, "another mesh");
    // Nor if it only says that it means this one.
    let knock = hello(lab.core(0).mesh(), Part::Server, knock.credential);
    assert_refused(&mut lab, 0, 3, &knock, RefusedKind::Credential, "for the mesh");
}

#[test]
fn an_expired_token_is_refused() {
    let mut lab = Lab::of(2);
    let end = lab.unix().after(SOON);
    let token = lab.invite_with(0, Role::Node, |grant| grant.expires = Some(end));
    lab.run_for(SOON);
    let knock = by_token(&token, 3, Part::Server);
    assert_refused(&mut lab, 1, 3, &knock, RefusedKind::Credential, "expired");
}

#[test]
fn a_revoked_token_is_refused_everywhere() {
    let mut lab = Lab::of(3);
    let token = lab.invite(0, Role::Node);
    let (now, unix) = (lab.now, lab.unix());
    lab.core(1).revoke(now, token.ids()[0], unix).unwrap();
    lab.drain(1);
    lab.run_for(Duration::from_secs(1));
    for at in 0..3 {
        let knock = by_token(&token, 3, Part::Server);
        assert_refused(&mut lab, at, 3, &knock, RefusedKind::Credential, "revoked");
    }
}

#[test]
fn a_token_that_was_used_up_is_refused() {
    for (role, part) in [(Role::Node, Part::Server), (Role::Client, Part::Client)] {
        let mut lab = Lab::of(2);
        let token = lab.invite_with(0, role, |grant| grant.uses = NonZeroU32::new(1));
        lab.start(2, part, Some(&token));
        lab.run_for(SOON);
        assert!(lab.is_in(2));
        for at in [0, 1] {
            let knock = by_token(&token, 3, part);
            assert_refused(&mut lab, at, 3, &knock, RefusedKind::Credential, "");
            // Whoever used it up may show it again.
            let again = by_token(&token, 2, part);
            assert_eq!(lab.knock(at, 2, &again), Ok(role));
        }
    }
}

#[test]
fn a_token_that_was_sealed_for_another_is_refused() {
    let mut lab = Lab::of(2);
    let token = lab.invite(0, Role::Node);
    let knock = by_token(&token, 2, Part::Server);
    assert_refused(&mut lab, 0, 3, &knock, RefusedKind::Credential, "another machine");
}

#[test]
fn a_token_by_somebody_who_was_removed_is_refused() {
    let mut lab = Lab::of(3);
    let token = lab.invite(2, Role::Node);
    lab.kick(0, 2);
    lab.run_for(Duration::from_secs(1));
    for at in [0, 1] {
        let knock = by_token(&token, 3, Part::Server);
        assert_refused(&mut lab, at, 3, &knock, RefusedKind::Credential, "no member");
    }
}

#[test]
fn a_token_by_a_stranger_is_refused() {
    let mut lab = Lab::of(2);
    let grant = lab.invite(0, Role::Node).grant().clone();
    let token = Token::issue(&key(5), grant, key(6)).unwrap();
    let knock = by_token(&token, 3, Part::Server);
    assert_refused(&mut lab, 0, 3, &knock, RefusedKind::Credential, "no member");
}

#[test]
fn a_worker_lets_nobody_in_by_a_token() {
    let mut lab = Lab::of(1);
    let worker = lab.invite(0, Role::Worker);
    lab.start(1, Part::Server, Some(&worker));
    lab.run_for(SOON);
    let token = lab.invite(0, Role::Node);
    let knock = by_token(&token, 3, Part::Server);
    assert_refused(&mut lab, 1, 3, &knock, RefusedKind::Busy, "may let nobody in");
    // Nor does a token that it made itself.
    let forged = Token::issue(&key(1), token.grant().clone(), key(6)).unwrap();
    let knock = by_token(&forged, 3, Part::Server);
    assert_refused(&mut lab, 0, 3, &knock, RefusedKind::Credential, "no member");
}

#[test]
fn a_client_lets_nobody_in() {
    let mut lab = Lab::of(1);
    let client = lab.invite(0, Role::Client);
    lab.start(1, Part::Client, Some(&client));
    lab.run_for(SOON);
    let token = lab.invite(0, Role::Node);
    let knock = by_token(&token, 3, Part::Server);
    assert_refused(&mut lab, 1, 3, &knock, RefusedKind::Busy, "");
    let knock = hello(token.grant().mesh, Part::Client, Credential::Member);
    assert_refused(&mut lab, 1, 0, &knock, RefusedKind::Busy, "");
}

#[test]
fn whoever_is_not_in_yet_lets_nobody_in() {
    let mut lab = Lab::of(1);
    let token = lab.invite(0, Role::Node);
    lab.stop(0);
    lab.start(1, Part::Server, Some(&token));
    let knock = hello(token.grant().mesh, Part::Server, Credential::Member);
    assert_refused(&mut lab, 1, 0, &knock, RefusedKind::Busy, "no member itself");
}

#[test]
fn versions_without_one_in_common_are_refused() {
    let mut lab = Lab::of(2);
    let mut knock = lab.core(1).hello();
    for (oldest, newest) in [
        (VERSIONS.newest + 1, VERSIONS.newest + 9),
        (0, VERSIONS.oldest - 1),
    ] {
        knock.versions = Versions { oldest, newest };
        assert_refused(&mut lab, 0, 1, &knock, RefusedKind::Version, "update");
    }
    knock.versions = Versions {
        oldest: 0,
        newest: u16::MAX,
    };
    assert_eq!(lab.knock(0, 1, &knock), Ok(Role::Node));
}

#[test]
fn a_credential_is_for_its_part() {
    let mut lab = Lab::of(2);
    let client = lab.invite(0, Role::Client);
    let knock = by_token(&client, 3, Part::Server);
    assert_refused(&mut lab, 0, 3, &knock, RefusedKind::Credential, "--client");
    let worker = lab.invite(0, Role::Worker);
    let knock = by_token(&worker, 3, Part::Client);
    assert_refused(
        &mut lab,
        0,
        3,
        &knock,
        RefusedKind::Credential,
        "without --client",
    );
    // A node may do either.
    let node = lab.invite(0, Role::Node);
    let before = lab.digest(0);
    let knock = by_token(&node, 3, Part::Client);
    assert_eq!(lab.knock(0, 3, &knock), Ok(Role::Client));
    assert_eq!(lab.digest(0), before, "a client leaves nothing behind");
}

#[test]
fn a_stranger_is_refused_whatever_it_shows() {
    let mut lab = Lab::of(2);
    let mesh = lab.core(0).mesh();
    let act = lab.core(1).kept().1.unwrap().clone();
    for credential in [Credential::Member, Credential::Certificate(Box::new(act))] {
        for part in [Part::Server, Part::Client] {
            let knock = hello(mesh, part, credential.clone());
            assert_refused(&mut lab, 0, 3, &knock, RefusedKind::Credential, "no member");
        }
    }
}

#[test]
fn a_client_is_told_nothing_of_who_belongs() {
    let mut lab = Lab::of(3);
    let token = lab.invite(0, Role::Client);
    let (now, unix) = (lab.now, lab.unix());
    let knock = by_token(&token, 3, Part::Client);
    let (_, answer) = lab.core(0).admit(now, unix, node_id(3), &knock).unwrap();
    let Answer::Welcome(welcome) = answer else {
        panic!("it is let in")
    };
    assert_eq!(welcome.acts, []);
    assert_eq!(welcome.contacts, []);
}

#[test]
fn whoever_was_called_and_is_no_member_is_not_believed() {
    let mut lab = Lab::of(2);
    let (now, unix) = (lab.now, lab.unix());
    let knock = lab.core(1).hello();
    let (_, answer) = lab.core(0).admit(now, unix, node_id(1), &knock).unwrap();
    let Answer::Welcome(welcome) = answer else {
        panic!("it is let in")
    };
    assert!(lab.core(1).welcomed(now, node_id(7), &welcome).is_err());
    // And whoever lets in without a proof lets nobody in.
    let mesh = lab.core(0).mesh();
    let mut joiner = Core::new(Start {
        key: key(7),
        boot: Boot(1),
        roster: Roster::new(mesh),
        part: Part::Server,
        certificate: None,
        token: None,
        contacts: Vec::new(),
        seed: 1,
    });
    assert!(joiner.welcomed(now, node_id(0), &welcome).is_err());
}

#[test]
fn a_member_may_use_the_same_whoever_dialled() {
    let mut lab = Lab::of(2);
    let models = Some(vec!["qwen".to_owned()]);
    let token = lab.invite_with(0, Role::Node, |grant| grant.models = models.clone());
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(SOON);
    let (now, unix) = (lab.now, lab.unix());
    let knock = lab.core(2).hello();
    let (admitted, _) = lab.core(0).admit(now, unix, node_id(2), &knock).unwrap();
    assert_eq!(admitted.models, models);
    let knock = lab.core(0).hello();
    let (_, answer) = lab.core(2).admit(now, unix, node_id(0), &knock).unwrap();
    let Answer::Welcome(welcome) = answer else {
        panic!("it is let in")
    };
    let admitted = lab.core(0).welcomed(now, node_id(2), &welcome).unwrap();
    assert_eq!(admitted.models, models);
}

#[test]
fn a_client_serves_nobody() {
    let mut lab = Lab::of(1);
    let token = lab.invite(0, Role::Client);
    lab.start(1, Part::Client, Some(&token));
    let (now, unix) = (lab.now, lab.unix());
    let knock = lab.core(1).hello();
    let (_, answer) = lab.core(0).admit(now, unix, node_id(1), &knock).unwrap();
    let Answer::Welcome(welcome) = answer else {
        panic!("it is let in")
    };
    let admitted = lab.core(1).welcomed(now, node_id(0), &welcome).unwrap();
    assert_eq!(admitted.models, Some(Vec::new()));
}
