//! Who is let in by a token that nobody has tampered with.

use super::*;
use crate::mesh::id::TokenUse;
use std::time::Duration;

fn at(seconds: u64) -> UnixSeconds {
    UnixSeconds(seconds)
}

fn until(end: u64) -> Sealed {
    let token = issue(Grant {
        expires: Some(at(end)),
        ..grant()
    });
    token.seal(newcomer())
}

fn verify_at(sealed: &Sealed, now: u64) -> Result<Verified, Refusal> {
    sealed.verify(mesh(), newcomer(), at(now))
}

#[test]
fn every_member_can_tell_alone_what_a_newcomer_will_be() {
    let token = issue(Grant {
        role: Role::Worker,
        uses: some(2),
        models: models(&["qwen"]),
        ..grant()
    });
    let verified = Verified {
        issuer: founder().public(),
        role: Role::Worker,
        tokens: vec![TokenUse {
            token: token.ids()[0],
            uses: some(2),
        }],
        models: models(&["qwen"]),
    };
    assert_eq!(verify(&token), Ok(verified));
}

#[test]
fn any_member_may_have_issued_it() {
    let member = key(9);
    let token = Token::issue(&member, grant(), key(2)).unwrap();
    assert_eq!(token.grant().issuer, member.public());
    assert_eq!(verify(&token).unwrap().issuer, member.public());
}

#[test]
fn the_second_of_its_expiry_is_the_first_without_it() {
    let sealed = until(1000);
    assert!(verify_at(&sealed, 0).is_ok());
    assert!(verify_at(&sealed, 999).is_ok());
    for (now, since) in [(1000, 0), (1001, 1), (u64::MAX, u64::MAX - 1000)] {
        let since = Duration::from_secs(since);
        assert_eq!(verify_at(&sealed, now), Err(Refusal::Expired { since }));
    }
    assert!(verify_at(&until(0), 0).is_err());
    assert!(verify_at(&until(u64::MAX), u64::MAX - 1).is_ok());
}

#[test]
fn one_without_an_end_has_none() {
    let token = issue(Grant {
        expires: None,
        ..grant()
    });
    assert!(verify_at(&token.seal(newcomer()), u64::MAX).is_ok());
}

#[test]
fn a_week_outlasts_clocks_an_hour_apart_and_half_an_hour_is_explained() {
    const HOUR: u64 = 3600;
    let (fast, slow) = (NOW.0 + HOUR, NOW.0 - HOUR);
    let week = until(NOW.0 + 7 * DAY);
    assert!(verify_at(&week, fast).is_ok() && verify_at(&week, slow).is_ok());
    let half_an_hour = until(NOW.0 + HOUR / 2);
    assert!(verify_at(&half_an_hour, slow).is_ok());
    let told = verify_at(&half_an_hour, fast).unwrap_err().to_string();
    assert!(
        told.contains("expired 30 minutes ago") && told.contains("clocks"),
        "{told}"
    );
}

#[test]
fn the_time_since_it_expired_is_told_as_people_would() {
    for (since, words) in [
        (0, "0 seconds"),
        (1, "1 second "),
        (59, "59 seconds"),
        (60, "1 minute "),
        (3599, "59 minutes"),
        (3600, "1 hour "),
        (2 * DAY, "2 days"),
    ] {
        let told = verify_at(&until(1000), 1000 + since).unwrap_err().to_string();
        assert!(told.contains(&format!("expired {words}")), "{told}");
    }
}

#[test]
fn it_is_good_for_nobody_but_who_it_was_sealed_for() {
    let sealed = issue(grant()).seal(newcomer());
    let refused = sealed.verify(mesh(), key(201).public(), NOW);
    assert_eq!(refused, Err(Refusal::NotForYou));
}

#[test]
fn another_mesh_is_told_by_name() {
    let other = MeshId(key(50).public());
    let refusal = issue(grant())
        .seal(newcomer())
        .verify(other, newcomer(), NOW)
        .unwrap_err();
    assert_eq!(
        refusal,
        Refusal::OtherMesh {
            wanted: mesh(),
            ours: other
        }
    );
    let told = refusal.to_string();
    assert!(
        told.contains(&mesh().to_string()) && told.contains(&other.to_string()),
        "{told}"
    );
}

#[test]
fn what_is_shown_holds_no_secret() {
    let token = restricted(issue(grant()), [Restriction::default()]);
    let shown = postcard::to_allocvec(&token.seal(newcomer())).unwrap();
    for secret in [founder(), key(2), key(3)] {
        let secret = secret.to_bytes();
        assert!(!shown.windows(secret.len()).any(|bytes| bytes == secret));
    }
}

proptest! {
    #[test]
    fn it_arrives_as_it_was_sent(grant in any_grant()) {
        let Ok(token) = Token::issue(&founder(), grant, key(2)) else {
            return Ok(());
        };
        let sealed = token.seal(newcomer());
        let bytes = postcard::to_allocvec(&sealed).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Sealed>(&bytes).unwrap(), sealed);
    }
}
