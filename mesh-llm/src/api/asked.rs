//! What decides where a request goes: the model that it names, and the conversation that it belongs to.
//! All else in its body is the engine's to read.

use crate::plan::route::SessionKey;
use hyper::HeaderMap;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The header by which a client names a conversation.
const SESSION: &str = "x-session-id";

/// Messages that tell a conversation from others, at most.
const MOST_MESSAGES: usize = 64;

/// What was looked at of a request's body. A body that cannot be read says nothing: the engine tells the
/// client what is wrong with it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked<'a> {
    model: Option<String>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
}

impl<'a> Asked<'a> {
    /// Looks at a body.
    pub(super) fn read(body: &'a [u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// The model that the request names; as for the engine, an empty name is none.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref().filter(|model| !model.is_empty())
    }

    /// The conversation that the request belongs to: what the client calls it, else what it begins with, up
    /// to the first message of the user.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<SessionKey> {
        let model = self.model().unwrap_or_default();
        if let Some(name) = headers.get(SESSION) {
            return Some(SessionKey::named(model, name.as_bytes()));
        }
        let mut beginning = Vec::new();
        let mut messages = serde_json::Deserializer::from_str(self.messages?.get());
        // It stops where the user has spoken, which is an error; what was read until then counts.
        let _ = messages.deserialize_seq(UntilUser(&mut beginning));
        let begun = || SessionKey::begun(model, beginning.iter().map(|message| message.get().as_bytes()));
        (!beginning.is_empty()).then(begun)
    }
}

/// Collects messages up to the first one of the user.
struct UntilUser<'c, 'a>(&'c mut Vec<&'a RawValue>);

impl<'a> Visitor<'a> for UntilUser<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut messages: A) -> Result<(), A::Error> {
        while self.0.len() < MOST_MESSAGES
            && let Some(message) = messages.next_element::<&RawValue>()?
        {
            self.0.push(message);
            if is_user(message) {
                break;
            }
        }
        Ok(())
    }
}

fn is_user(message: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
    }
    serde_json::from_str::<Message<'_>>(message.get()).is_ok_and(|message| message.role == "user")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn session(body: &str) -> Option<SessionKey> {
        Asked::read(body.as_bytes()).session(&HeaderMap::new())
    }

    const SYSTEM: &str = r#"{"role":"system","content":"Be brief."}"#;
    const QUESTION: &str = r#"{"role":"user","content":[{"type":"text","text":"Why?"}]}"#;

    fn chat(model: &str, messages: &[&str]) -> String {
        format!(r#"{{"messages":[{}],"model":"{model}"}}"#, messages.join(","))
    }

    #[test]
    fn the_model_is_found_wherever_it_stands() {
        for (body, model) in [
            (r#"{"model":"a"}"#, Some("a")),
            (r#"{"messages":[{"model":"b"}],"model":"a\u0062"}"#, Some("ab")),
            (r#"{"model":"a","messages":null}"#, Some("a")),
            (r#"{"model":"a","messages":"?"}"#, Some("a")),
            (r#"{"model":null}"#, None),
            (r#"{"model":""}"#, None),
            (r#"{"model":5}"#, None),
            (r#"{"model":"a","model":"b"}"#, None),
            (r#"{"model":"a""#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(Asked::read(body.as_bytes()).model(), model, "{body}");
        }
    }

    #[test]
    fn a_conversation_is_known_by_its_beginning_however_it_goes_on() {
        let begun = session(&chat("m", &[SYSTEM, QUESTION]));
        assert!(begun.is_some());
        let more = r#"{"role":"assistant","content":"So."}"#;
        assert_eq!(session(&chat("m", &[SYSTEM, QUESTION, more, QUESTION])), begun);
        for other in [
            chat("n", &[SYSTEM, QUESTION]),
            chat("m", &[QUESTION]),
            chat("m", &[SYSTEM, more, QUESTION]),
        ] {
            assert_ne!(session(&other), begun, "{other}");
        }
    }

    #[test]
    fn a_name_in_the_header_counts_more_than_the_beginning() {
        let mut headers = HeaderMap::new();
        headers.insert(SESSION, HeaderValue::from_static("s"));
        let (one, other) = (chat("m", &[SYSTEM]), chat("m", &[QUESTION]));
        let named = |body: &str| Asked::read(body.as_bytes()).session(&headers);
        assert_eq!(named(&one), named(&other));
        assert_ne!(named(&one), session(&one));
    }

    #[test]
    fn what_has_no_beginning_belongs_to_no_conversation() {
        for body in [
            r#"{"model":"m","prompt":"x"}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":{}}"#,
            "?",
        ] {
            assert_eq!(session(body), None, "{body}");
        }
    }

    #[test]
    fn a_beginning_is_bounded() {
        let mut messages = vec![SYSTEM; MOST_MESSAGES];
        let bounded = session(&chat("m", &messages));
        messages.push(QUESTION);
        assert_eq!(session(&chat("m", &messages)), bounded);
    }
}
