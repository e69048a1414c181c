//! A token's bytes, which another program wrote after the documentation of the format alone: what is given out today
//! is read by every later version.

use super::super::content;
use super::*;
use sha2::{Digest, Sha256};

/// The founder's key is 32 times the byte 1, the issuer's 9, the fresh ones 2 and 3.
const TEXT: &str = "mesh1hwGKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXAH9FyQ4WqDHW2T7eM1gL6HZkf3r92sTxY7XAurINen2GAIBgJn\
    M2gYBBQECAWEEcXdlbgIAAwDAAAIBwkkBIAENuAAAAAAAAAAAAAAAAQAHAhNodHRwczovL3IuZXhhbXBsZS4vAQC4RDIErVtCmZW\
    vut37N-YtCbXw8UEz9Yab_eD0f5Uy9EjaoE6gK5X9ItPOEoCEvoR1xWcaaKQab7Y5uXaDVCUEAYE5dw6ofRdfVqNUZsNMfszLjYq\
    RtO43ol32D1uPybOUEQEAAYDHrNoGAQIBAQRxd2Vu0q5GsfWV2cx5oNAbTHVfbG2GgRZehepDitQW1XgpcLektQarc8a7KugOE-B\
    6dTyDik6oSvGTR5EeERG8Fci_BQMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD";

fn pinned() -> Token {
    let grant = Grant {
        mesh: mesh(),
        issuer: key(9).public(),
        role: Role::Node,
        expires: in_days(7),
        uses: some(5),
        models: models(&["a", "qwen"]),
        contacts: vec![
            Contact {
                node: key(9).public(),
                addresses: vec![
                    Address::Ip(([192, 0, 2, 1], 49_737).into()),
                    Address::Ip(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 7).into()),
                    Address::Relay("https://r.example./".to_owned()),
                ],
            },
            Contact {
                node: mesh().founder(),
                addresses: Vec::new(),
            },
        ],
    };
    let restriction = Restriction {
        role: Some(Role::Client),
        expires: in_days(1),
        uses: some(2),
        models: models(&["qwen"]),
    };
    let token = Token::issue(&key(9), grant, key(2)).unwrap();
    token.restrict(restriction, key(3)).unwrap()
}

#[test]
fn a_token_is_written_as_ever() {
    assert_eq!(pinned().to_string(), TEXT);
}

#[test]
fn a_token_of_then_is_read_now() {
    let token: Token = TEXT.parse().unwrap();
    assert_eq!(token.grant(), pinned().grant());
    assert_eq!(token.rights(), pinned().rights());
    let ids: Vec<String> = token.ids().iter().map(TokenId::to_string).collect();
    assert_eq!(
        ids,
        [
            "7c4ce3cd9086a3fd60f1fa85b7d1795b",
            "fee043cf698d6bcf44c7c6a690f6fec6"
        ]
    );
}

#[test]
fn a_sealed_token_is_sent_as_ever() {
    let bytes = content::encode(&pinned().seal(newcomer()));
    assert_eq!(bytes.len(), 412);
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        digest,
        "803d81e5cd684d4e36b0a9103a5671c142c2ea1dd0903505010a8a50382d34e3"
    );
}
