//! A restriction only takes away.

use super::*;

fn role(role: Role) -> Restriction {
    Restriction {
        role: Some(role),
        ..Restriction::default()
    }
}

#[test]
fn a_grant_is_what_it_allows() {
    let token = issue(Grant {
        uses: some(3),
        models: models(&["qwen"]),
        ..grant()
    });
    let rights = Rights {
        role: Role::Node,
        expires: in_days(7),
        uses: some(3),
        models: models(&["qwen"]),
    };
    assert_eq!(token.rights(), rights);
    assert_eq!(token.grant().issuer, founder().public());
}

#[test]
fn the_narrowest_of_each_block_counts() {
    let token = issue(Grant {
        uses: some(5),
        models: models(&["a", "b", "c"]),
        ..grant()
    });
    let less = Restriction {
        role: Some(Role::Client),
        expires: in_days(1),
        uses: some(2),
        models: models(&["c", "a", "x"]),
    };
    let more = Restriction {
        expires: in_days(30),
        uses: some(9),
        ..Restriction::default()
    };
    let rights = Rights {
        role: Role::Client,
        expires: in_days(1),
        uses: some(2),
        models: models(&["a", "c"]),
    };
    let token = token.restrict(less, key(3)).unwrap();
    assert_eq!(token.rights(), rights);
    assert_eq!(token.grant().role, Role::Node, "the grant stays what it was");
    assert_eq!(rights.narrowed(&more), Ok(rights), "more is not given");
}

#[test]
fn only_a_nodes_token_becomes_another_ones() {
    for had in Role::ALL {
        let token = issue(Grant { role: had, ..grant() });
        for wanted in Role::ALL {
            let made = token.restrict(role(wanted), key(3));
            if had == Role::Node || had == wanted {
                assert_eq!(made.unwrap().rights().role, wanted);
            } else {
                let error = made.unwrap_err();
                assert_eq!(error, RestrictError::Widened(Widened { had, wanted }));
                let told = error.to_string();
                assert!(
                    told.contains(had.word()) && told.contains(wanted.word()),
                    "{told}"
                );
            }
        }
    }
}

#[test]
fn a_clients_token_stays_a_clients_whatever_follows() {
    let token = issue(grant()).restrict(role(Role::Client), key(3)).unwrap();
    let error = token.restrict(role(Role::Node), key(4)).unwrap_err();
    assert!(matches!(error, RestrictError::Widened(_)), "{error}");
}

#[test]
fn a_token_for_no_model_at_all_is_not_made_by_mistake() {
    let token = issue(Grant {
        models: models(&["llama", "qwen"]),
        ..grant()
    });
    let other = Restriction {
        models: models(&["mistral"]),
        ..Restriction::default()
    };
    let told = token.restrict(other, key(3)).unwrap_err().to_string();
    assert!(told.contains("llama, qwen"), "{told}");
}

#[test]
fn each_block_has_its_own_count_of_uses() {
    let token = issue(Grant {
        uses: some(5),
        ..grant()
    });
    let twice = Restriction {
        uses: some(2),
        ..Restriction::default()
    };
    let (one, other) = (
        token.restrict(twice.clone(), key(3)).unwrap(),
        token.restrict(twice, key(4)).unwrap(),
    );
    let uses = |token: &Token| verify(token).unwrap().tokens;
    assert_eq!(
        uses(&one)[0],
        uses(&other)[0],
        "both count against the whole token's"
    );
    assert_ne!(uses(&one)[1].token, uses(&other)[1].token);
    assert_eq!(
        uses(&one).iter().map(|block| block.uses).collect::<Vec<_>>(),
        [some(5), some(2)]
    );
    let ids: Vec<TokenId> = uses(&one).iter().map(|block| block.token).collect();
    assert_eq!(ids, one.ids());
}

proptest! {
    #[test]
    fn rights_never_grow(grant in any_grant(), restrictions in vec(any_restriction(), 0..8)) {
        let mut rights = Rights::granted(&grant);
        for restriction in restrictions {
            let Ok(narrowed) = rights.narrowed(&restriction) else {
                let wanted = restriction.role.unwrap();
                prop_assert!(!rights.role.covers(wanted));
                continue;
            };
            prop_assert!(rights.role.covers(narrowed.role));
            // Where there is no limit, the limit is past everything.
            let end = |rights: &Rights| rights.expires.map_or(u128::MAX, |at| at.0.into());
            prop_assert!(end(&narrowed) <= end(&rights));
            let uses = |rights: &Rights| rights.uses.map_or(u64::MAX, |uses| uses.get().into());
            prop_assert!(uses(&narrowed) <= uses(&rights));
            let allows = |rights: &Rights, name: &str| {
                rights.models.as_ref().is_none_or(|models| models.iter().any(|model| model == name))
            };
            for name in ["a", "b", "llama", "qwen", "another"] {
                prop_assert!(!allows(&narrowed, name) || allows(&rights, name));
            }
            rights = narrowed;
        }
    }
}
