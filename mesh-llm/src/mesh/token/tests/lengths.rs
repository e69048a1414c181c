//! How long tokens are, and that no bigger ones are read.

use super::super::content;
use super::super::limits::{
    Content, Few, MOST_ADDRESSES, MOST_BLOCKS, MOST_CONTACTS, MOST_MODEL_BYTES, MOST_MODELS,
    MOST_RELAY_BYTES, Short,
};
use super::*;
use serde::Serialize;

/// All that a restriction can say, models aside, in its longest form.
fn longest_restriction() -> Restriction {
    Restriction {
        role: Some(Role::Client),
        expires: Some(UnixSeconds(u64::MAX)),
        uses: some(u32::MAX),
        models: None,
    }
}

/// More contacts and addresses than there is room for.
fn crowd() -> Vec<Contact> {
    let address = |port| Address::Ip(([2001, 0xdb8, 0, 0, 1, 2, 3, 4], port).into());
    let contact = |seed| Contact {
        node: key(seed).public(),
        addresses: (0..20).map(address).collect(),
    };
    (10..15).map(contact).collect()
}

#[test]
fn a_usual_token_is_short() {
    let token = issue(grant());
    let text = token.to_string();
    assert_eq!(text.len(), token.characters());
    assert_eq!(token.grant().contacts, grant().contacts, "nothing had to go");
    assert!(text.len() <= 280, "{} characters", text.len());
}

#[test]
fn a_token_of_another_member_than_the_founder_is_short_too() {
    let member = key(9);
    let mut grant = grant();
    grant.contacts[0].node = member.public();
    let token = Token::issue(&member, grant.clone(), key(2)).unwrap();
    assert_eq!(token.grant().contacts, grant.contacts);
    assert!(token.characters() <= 330, "{} characters", token.characters());
}

#[test]
fn contacts_make_way_for_a_restriction() {
    let token = issue(Grant {
        expires: Some(UnixSeconds(u64::MAX)),
        uses: some(u32::MAX),
        contacts: crowd(),
        ..grant()
    });
    assert!(token.characters() <= ISSUED_CHARACTERS);
    let kept = &token.grant().contacts;
    assert!(!kept.is_empty() && kept.iter().all(|contact| !contact.addresses.is_empty()));
    assert_eq!(kept[0].addresses[0], crowd()[0].addresses[0]);
    let restricted = token.restrict(longest_restriction(), key(3)).unwrap();
    assert!(restricted.to_string().len() <= MOST_CHARACTERS);
}

#[test]
fn models_count_more_than_contacts_and_one_address_stays() {
    let name = "m".repeat(30);
    let full = |count| Grant {
        models: Some(vec![name.clone(); count]),
        ..grant()
    };
    let token = issue(full(4));
    assert!(token.characters() > ISSUED_CHARACTERS);
    assert_eq!(
        token.grant().contacts[0].addresses,
        grant().contacts[0].addresses[..1]
    );
    let error = Token::issue(&founder(), full(8), key(2)).unwrap_err();
    let TooLong::Text { characters } = error else {
        panic!("{error}");
    };
    assert!(
        characters > MOST_CHARACTERS && error.to_string().contains("fewer models"),
        "{error}"
    );
}

#[test]
fn each_part_that_is_too_long_is_named() {
    let refused = |grant| Token::issue(&founder(), grant, key(2)).unwrap_err();
    let many = Grant {
        models: Some(vec!["m".to_owned(); MOST_MODELS + 1]),
        ..grant()
    };
    assert_eq!(
        refused(many),
        TooLong::Models {
            count: MOST_MODELS + 1
        }
    );
    let name = "m".repeat(MOST_MODEL_BYTES + 1);
    let long = Grant {
        models: Some(vec![name.clone()]),
        ..grant()
    };
    assert_eq!(refused(long), TooLong::Model { name });
    let url = format!("https://{}", "r".repeat(MOST_RELAY_BYTES));
    let mut far = grant();
    far.contacts[0].addresses.push(Address::Relay(url.clone()));
    assert_eq!(refused(far), TooLong::Relay { url });
}

#[test]
fn restrictions_come_to_an_end() {
    let mut token = issue(grant());
    let error = loop {
        match token.restrict(longest_restriction(), key(3)) {
            Ok(shorter) => token = shorter,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, RestrictError::TooLong(TooLong::Text { .. })),
        "{error}"
    );
    assert!(token.characters() <= MOST_CHARACTERS);
}

/// A sealed token of so many restrictions, whose contents have so many bytes each.
fn sealed(restrictions: usize, bytes: usize) -> Vec<u8> {
    let signature = key(1).sign(b"");
    let block = (Content(vec![0; bytes]), signature);
    let steps = Few::<_, 100>(vec![(key(1).public(), block.clone()); restrictions]);
    content::encode(&(block, steps, key(1).public(), signature))
}

#[test]
fn what_is_bigger_than_a_token_is_not_read() {
    let reads = |bytes: &[u8]| postcard::from_bytes::<Sealed>(bytes).is_ok();
    assert!(reads(&sealed(MOST_BLOCKS - 1, 10)));
    assert!(!reads(&sealed(MOST_BLOCKS, 10)), "too many blocks");
    // The length of the content, the signature, the number of restrictions.
    let most = MOST_BYTES - 2 - 64 - 1;
    assert!(reads(&sealed(0, most)));
    assert!(!reads(&sealed(0, most + 1)), "too many bytes");
    assert!(!reads(&sealed(MOST_BLOCKS - 1, 100)), "too many bytes in all");
}

/// Whether something is read back, as the type that has the limit.
fn reads<T: serde::de::DeserializeOwned>(value: &impl Serialize) -> bool {
    postcard::from_bytes::<T>(&content::encode(value)).is_ok()
}

#[test]
fn lists_and_texts_end_at_their_limits() {
    assert!(reads::<Few<u8, MOST_ADDRESSES>>(&vec![0_u8; MOST_ADDRESSES]));
    assert!(!reads::<Few<u8, MOST_ADDRESSES>>(&vec![0_u8; MOST_ADDRESSES + 1]));
    assert!(reads::<Few<u8, MOST_CONTACTS>>(&Vec::<u8>::new()));
    assert!(reads::<Short<MOST_RELAY_BYTES>>(&"r".repeat(MOST_RELAY_BYTES)));
    assert!(!reads::<Short<MOST_RELAY_BYTES>>(
        &"r".repeat(MOST_RELAY_BYTES + 1)
    ));
    // 2^28 - 1 items are claimed, none is there.
    let claim = [0xff, 0xff, 0xff, 0x7f];
    assert!(postcard::from_bytes::<Few<u8, MOST_MODELS>>(&claim).is_err());
    assert!(postcard::from_bytes::<Content>(&claim).is_err());
}
