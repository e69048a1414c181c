//! Certificates: acts that their subjects keep, and the roster need not have.

use super::*;
use crate::mesh::roster::{MOST_MODELS, Refused, TooLarge};

/// Ben lets a client in by a token that is not counted.
fn certificate(roster: &Roster) -> SignedAct {
    let tokens = vec![unlimited(1)];
    roster
        .admit(
            &KEYS[BEN],
            NODES[5],
            Role::Client,
            tokens,
            Some(vec!["qwen".into()]),
            at(10),
        )
        .unwrap()
}

#[test]
fn a_client_is_known_by_its_certificate_alone() {
    let roster = at_work();
    let standing = roster
        .certificate_standing(&certificate(&roster), NODES[5])
        .unwrap();
    assert_eq!((standing.role, standing.admitted_by), (Role::Client, NODES[BEN]));
    assert_eq!(standing.models, Some(vec!["qwen".into()]));
    assert!(!roster.is_member(5));
}

#[test]
fn a_certificate_is_worth_nothing_to_others() {
    let roster = at_work();
    let refused = Err(Refused::NotYours { subject: NODES[6] });
    assert_eq!(
        roster.certificate_standing(&certificate(&roster), NODES[6]),
        refused
    );
    assert_eq!(
        roster.certificate_standing(&sign(ANNE, remove(6, 0)), NODES[6]),
        refused
    );
}

#[test]
fn a_removed_client_is_out_with_its_certificate_and_in_again_with_the_next() {
    let mut roster = at_work();
    let old = certificate(&roster);
    roster.take(roster.remove(&KEYS[ANNE], NODES[5], at(11)).unwrap());
    let refused = Err(Refused::Removed { subject: NODES[5] });
    assert_eq!(roster.certificate_standing(&old, NODES[5]), refused);
    let new = certificate(&roster);
    assert_eq!(roster.certificate_standing(&new, NODES[5]).unwrap().generation, 1);
    roster.take(roster.remove(&KEYS[ANNE], NODES[5], at(12)).unwrap());
    assert_eq!(
        roster.certificate_standing(&new, NODES[5]),
        refused,
        "though the roster never had it"
    );
}

#[test]
fn a_certificate_needs_a_signer_who_is_a_node_now() {
    let mut roster = at_work();
    let by_worker = sign(CLEO, admit(5, Role::Client, 10));
    let refused = Err(Refused::SignerGone { by: NODES[CLEO] });
    assert_eq!(roster.certificate_standing(&by_worker, NODES[5]), refused);
    let kept = certificate(&roster);
    let mut knew = roster.clone();
    roster.take(roster.remove(&KEYS[ANNE], NODES[BEN], at(9)).unwrap());
    // Or Ben could let himself in again, under another key.
    let refused = Err(Refused::SignerGone { by: NODES[BEN] });
    assert_eq!(roster.certificate_standing(&kept, NODES[5]), refused);
    roster.take(kept.clone());
    assert_eq!(
        roster.certificate_standing(&kept, NODES[5]),
        refused,
        "whoever passes it on"
    );
    knew.take(kept.clone());
    knew.take(knew.remove(&KEYS[ANNE], NODES[BEN], at(9)).unwrap());
    assert!(
        knew.certificate_standing(&kept, NODES[5]).is_ok(),
        "the removal lets it stand"
    );
}

#[test]
fn a_certificate_from_before_its_signers_removal_is_worth_nothing_when_that_one_is_back() {
    let mut roster = at_work();
    let kept = certificate(&roster);
    roster.take(roster.remove(&KEYS[ANNE], NODES[BEN], at(9)).unwrap());
    let back = roster.admit(&KEYS[ANNE], NODES[BEN], Role::Node, vec![], None, at(10));
    roster.take(back.unwrap());
    let refused = Err(Refused::SignerGone { by: NODES[BEN] });
    assert_eq!(roster.certificate_standing(&kept, NODES[5]), refused);
    let new = certificate(&roster);
    assert_eq!(new.in_generation(), 1);
    assert!(roster.certificate_standing(&new, NODES[5]).is_ok());
}

#[test]
fn a_certificate_counts_unless_the_roster_knows_better() {
    let mut roster = at_work();
    let by_token = roster
        .admit(
            &KEYS[BEN],
            NODES[DAN],
            Role::Worker,
            vec![unlimited(1)],
            None,
            at(1),
        )
        .unwrap();
    let standing = |roster: &Roster| roster.certificate_standing(&by_token, NODES[DAN]).unwrap().role;
    assert_eq!(standing(&roster), Role::Worker, "newer than what the roster has");
    roster.take(sign(BEN, admit(DAN, Role::Node, 100)));
    assert_eq!(standing(&roster), Role::Node);
    // The founder needs none.
    let founder = sign(BEN, admit(FOUNDER, Role::Client, 100));
    let standing = roster.certificate_standing(&founder, NODES[FOUNDER]).unwrap();
    assert_eq!(standing.role, Role::Node);
}

#[test]
fn a_certificate_by_a_token_that_others_used_up_is_worth_nothing() {
    let mut roster = at_work();
    let late = sign(BEN, admit_by(vec![limited(1, 1)], 5, Role::Client, 10, 0));
    assert!(roster.certificate_standing(&late, NODES[5]).is_ok());
    roster.take(sign(BEN, admit_by(vec![limited(1, 1)], 6, Role::Client, 11, 0)));
    let refused = Refused::Exhausted {
        token: token(1),
        uses: NonZeroU32::MIN,
    };
    assert_eq!(roster.certificate_standing(&late, NODES[5]), Err(refused));
}

#[test]
fn a_forged_or_outsized_certificate_is_refused() {
    let roster = at_work();
    let of_another_mesh = SignedAct::sign(&KEYS[BEN], MeshId(NODES[5]), 0, admit(5, Role::Client, 10));
    let refused = Err(Refused::Forged { by: NODES[BEN] });
    assert_eq!(roster.certificate_standing(&of_another_mesh, NODES[5]), refused);
    let models = Some(vec!["qwen".to_owned(); MOST_MODELS + 1]);
    let outsized = Act::Admit {
        subject: NODES[5],
        role: Role::Client,
        tokens: vec![],
        models: models.clone(),
        at: at(10),
        generation: 0,
    };
    let refused = Refused::TooLarge(TooLarge::Models(MOST_MODELS + 1));
    let shown = roster.certificate_standing(&sign(BEN, outsized), NODES[5]);
    assert_eq!(shown, Err(refused.clone()));
    let made = roster.admit(&KEYS[BEN], NODES[5], Role::Client, vec![], models, at(10));
    assert_eq!(made, Err(refused), "nor is one made");
}
