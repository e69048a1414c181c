//! Who may use the API: whoever shows one of its keys, where it has any.

use hyper::header::{AUTHORIZATION, HeaderMap};
use std::fmt;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

/// The keys of the API; clones share them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Arc<[String]>);

/// How many there are, and not what they are.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// These keys; empty ones count for nothing.
    pub fn new(keys: impl IntoIterator<Item = String>) -> Self {
        Self(keys.into_iter().filter(|key| !key.is_empty()).collect())
    }

    /// The keys of a file: one a line, after `#` comments.
    pub fn of_file(text: &str) -> impl Iterator<Item = String> {
        text.lines()
            .map(|line| line.trim())
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
    }

    /// Whether everybody may use the API.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request shows one of the keys: as `Authorization: Bearer KEY`, which OpenAI's clients
    /// send, or as `x-api-key: KEY`, which Anthropic's do.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        if self.is_empty() {
            return true;
        }
        let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
        });
        let plain = headers.get_all("x-api-key").iter().map(|value| value.as_bytes());
        // Each is compared with all of them, whatever the first comparisons say: the time tells nothing.
        let shown = bearer.chain(plain);
        let found = shown.flat_map(|key| {
            self.0
                .iter()
                .map(move |own| own.as_bytes().ct_eq(key.trim_ascii()))
        });
        found.fold(Choice::from(0), |any, one| any | one).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn admits(keys: &[&str], name: &'static str, value: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Keys::new(keys.iter().map(|key| (*key).to_owned())).admit(&headers)
    }

    #[test]
    fn a_key_is_shown_in_either_header() {
        let keys = ["first", "second"];
        assert!(admits(&keys, "authorization", "Bearer first"));
        assert!(admits(&keys, "authorization", "bearer second"));
        assert!(admits(&keys, "x-api-key", "second"));
        for (name, value) in [
            ("authorization", "first"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer firs"),
            ("authorization", "Bearer firstt"),
            ("authorization", "Basic first"),
            ("x-api-key", ""),
            ("x-other", "first"),
        ] {
            assert!(!admits(&keys, name, value), "{name}: {value}");
        }
    }

    #[test]
    fn without_keys_everybody_may_come() {
        assert!(admits(&[], "x-other", ""));
        assert!(admits(&[""], "x-other", ""));
    }

    #[test]
    fn a_file_has_a_key_a_line() {
        let keys: Vec<String> = Keys::of_file("# of people\nfirst \r\n\n  second\n").collect();
        assert_eq!(keys, ["first", "", "second"]);
    }

    #[test]
    fn keys_are_not_logged() {
        assert_eq!(format!("{:?}", Keys::new(["secret".to_owned()])), "Keys(1)");
    }
}
