//! What people paste.

use super::*;

fn read(text: &str) -> TokenError {
    text.parse::<Token>().unwrap_err()
}

#[test]
fn spaces_and_line_breaks_are_forgiven_wherever_they_are() {
    let text = issue(grant()).to_string();
    let (left, right) = text.split_at(100);
    for pasted in [
        format!("  {text}\n"),
        format!("{left}\n{right}"),
        format!("\t{left}\r\n    {right}\r\n"),
        format!("{left}\u{a0}{right}"),
        text.chars().map(|c| format!("{c} ")).collect(),
        format!("{}{text}", "\n".repeat(10_000)),
    ] {
        assert_eq!(pasted.parse::<Token>().unwrap().to_string(), text);
    }
}

#[test]
fn a_cut_text_is_told_from_a_wrong_one() {
    let text = restricted(issue(grant()), [Restriction::default()]).to_string();
    for end in 0..text.len() {
        let expected = if end < "mesh1".len() {
            TokenError::NoToken
        } else {
            TokenError::CutOff
        };
        assert_eq!(read(&text[..end]), expected, "{end} of {} characters", text.len());
    }
}

#[test]
fn each_character_counts() {
    let text = issue(grant()).to_string();
    for at in "mesh1".len()..text.len() {
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut mistyped = text.clone();
        mistyped.replace_range(at..=at, other);
        let error = read(&mistyped);
        assert!(
            matches!(error, TokenError::Damaged | TokenError::CutOff),
            "{at}: {error}"
        );
    }
}

#[test]
fn what_is_no_token_is_told_what_one_is() {
    for text in [
        "",
        " ",
        "mesh",
        "Mesh1AAAA",
        "mesh0AAAA",
        "meshes",
        "hello",
        "https://mesh1",
        "\u{1f980}",
    ] {
        assert_eq!(read(text), TokenError::NoToken, "{text}");
    }
    assert_eq!(read(&"x".repeat(1 << 20)), TokenError::NoToken);
}

#[test]
fn a_newer_token_asks_for_a_newer_program() {
    assert_eq!(read("mesh2abc"), TokenError::NewerVersion);
    assert_eq!(
        read(&format!("mesh9{}", "x".repeat(10_000))),
        TokenError::NewerVersion
    );
}

#[test]
fn what_was_copied_too_much_is_named() {
    let text = issue(grant()).to_string();
    assert_eq!(read(&format!("{text}.")), TokenError::Stray('.'));
    assert_eq!(read(&format!("{text}`")), TokenError::Stray('`'));
    assert_eq!(
        read(&format!("mesh1\u{fffd}{}", &text[5..])),
        TokenError::Stray('\u{fffd}')
    );
    assert_eq!(read(&format!("{text}{text}")), TokenError::TooLong);
    assert_eq!(read(&format!("{text}AAAA")), TokenError::Damaged);
}

#[test]
fn no_message_holds_a_part_of_a_token() {
    let text = issue(grant()).to_string();
    let body = &text["mesh1".len()..];
    for pasted in [
        format!("{text}!"),
        text[..text.len() - 1].to_owned(),
        format!("{text}AAAA"),
        format!("mesh2{body}"),
        body.to_owned(),
        format!("{text}{text}"),
    ] {
        let told = format!("{0} {0:?}", read(&pasted));
        assert!(
            !told.contains(&body[..8]) && !told.contains(&body[body.len() - 8..]),
            "{told}"
        );
    }
}

#[test]
fn debug_does_not_show_the_secret() {
    let token = Token::issue(&founder(), grant(), SecretKey::from_bytes(&[0xab; 32])).unwrap();
    let shown = format!("{token:?} {token:#?}").to_lowercase();
    assert!(!shown.contains("171, 171") && !shown.contains("abab"), "{shown}");
}

proptest! {
    #[test]
    fn a_token_is_read_as_it_was_made(grant in any_grant(), restrictions in vec(any_restriction(), 0..3)) {
        let Ok(mut token) = Token::issue(&founder(), grant, key(2)) else {
            return Ok(());
        };
        for (seed, restriction) in (3..).zip(restrictions) {
            token = token.restrict(restriction, key(seed)).unwrap_or(token);
        }
        let text = token.to_string();
        prop_assert!(text.len() <= MOST_CHARACTERS);
        prop_assert_eq!(text.len(), token.characters());
        let read: Token = text.parse().unwrap();
        prop_assert_eq!(read.grant(), token.grant());
        prop_assert_eq!(read.rights(), token.rights());
        prop_assert_eq!(read.ids(), token.ids());
        prop_assert_eq!(read.seal(newcomer()), token.seal(newcomer()));
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn any_text_is_refused_without_harm(text in "(mesh1)?[ -~\u{a0}-\u{ff}]{0,400}") {
        prop_assert!(text.parse::<Token>().is_err());
    }

    #[test]
    fn any_bytes_as_text_are_refused_without_harm(body in "mesh1[A-Za-z0-9_-]{0,495}") {
        prop_assert!(body.parse::<Token>().is_err());
    }
}
