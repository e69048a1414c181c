//! Whether two models speak of the same tokens: one guesses in numbers what the other will say.

use std::ffi::CStr;
use std::fmt;

use llama_cpp_sys_2 as sys;

use super::{Model, Token};

/// llama.cpp's `SPEC_VOCAB_MAX_SIZE_DIFFERENCE`: models of one family are padded to other sizes.
const MOST_SIZE_DIFFERENCE: usize = 128;
/// llama.cpp's `SPEC_VOCAB_CHECK_START_TOKEN_ID`: the first few are called by other names in models of one
/// family.
const FIRST_COMPARED: usize = 5;

/// What a draft model and its target must have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    kind: sys::llama_vocab_type,
    entries: Vec<Entry>,
    /// The token that a text begins with, where a text is given one.
    begins: Option<Token>,
    /// The token that is put behind a text, where a text is given one.
    closes: Option<Token>,
    /// The tokens for the end of a text and of a turn.
    ends: Vec<(End, Token)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    text: Vec<u8>,
    class: Class,
    /// Whether it ends an answer.
    is_end: bool,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Text,
    Byte,
    /// It marks something. Files of one family do not agree on whether users may write it.
    Mark,
    Unknown,
    Unused,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Byte => "a byte",
            Self::Mark => "a mark",
            Self::Unknown => "for what is unknown",
            Self::Unused => "unused",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Text,
    Turn,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Turn => "turn",
        })
    }
}

/// Why a model cannot guess for another: what the first, the draft, has, and what the target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// They cut texts into tokens by other rules.
    #[error("its tokenizer is {draft} and the model's is {target}")]
    Kind {
        /// Its name.
        draft: &'static str,
        /// Its name.
        target: &'static str,
    },
    /// One has many more tokens.
    #[error("it has {draft} tokens and the model {target}")]
    Size {
        /// Tokens.
        draft: usize,
        /// Tokens.
        target: usize,
    },
    /// A token stands for something else.
    #[error("token {token} is {draft:?} in it and {target:?} in the model")]
    Text {
        /// The first that does.
        token: usize,
        /// Its text.
        draft: String,
        /// Its text.
        target: String,
    },
    /// A token is for something else.
    #[error("token {token} ({text:?}) is {draft} in it and {target} in the model")]
    Class {
        /// The first that is.
        token: usize,
        /// Its text.
        text: String,
        /// What for.
        draft: String,
        /// What for.
        target: String,
    },
    /// Texts are framed in another way.
    #[error("it {draft} and the model {target}")]
    Frame {
        /// How.
        draft: String,
        /// How.
        target: String,
    },
    /// What ends an answer for one does not for the other.
    #[error("token {token} ends a {end} in {here} and nothing in {there}")]
    End {
        /// Which.
        token: Token,
        /// What it ends.
        end: String,
        /// Where it does.
        here: &'static str,
        /// Where it does not.
        there: &'static str,
    },
}

impl Vocabulary {
    /// That of a model.
    pub fn of(model: &Model) -> Self {
        let vocab = model.vocab_ptr();
        // SAFETY: reads a field.
        let kind = unsafe { sys::llama_vocab_type(vocab) };
        // llama.cpp aborts where texts are asked for that are not there.
        let size = if kind == sys::LLAMA_VOCAB_TYPE_NONE {
            0
        } else {
            model.vocab_size()
        };
        let entries = (0..i32::try_from(size).unwrap_or(i32::MAX)).map(|token| {
            // SAFETY: the token is in the vocabulary, whose texts live as long as the model.
            let (text, attributes) = unsafe {
                (
                    CStr::from_ptr(sys::llama_vocab_get_text(vocab, token))
                        .to_bytes()
                        .to_vec(),
                    sys::llama_vocab_get_attr(vocab, token),
                )
            };
            Entry {
                text,
                class: class(attributes),
                is_end: model.is_end(token),
            }
        });
        // SAFETY: reads a field.
        let end_of_turn = unsafe { sys::llama_vocab_eot(vocab) };
        let ends = [(End::Text, model.eos()), (End::Turn, Some(end_of_turn))];
        Self {
            kind,
            entries: entries.collect(),
            begins: model.bos().filter(|_| model.add_bos()),
            closes: model.eos().filter(|_| model.add_eos()),
            ends: ends
                .into_iter()
                .filter_map(|(end, token)| Some((end, token.filter(|token| *token >= 0)?)))
                .collect(),
        }
    }

    /// Whether a model with this vocabulary can guess for one with that of `target`.
    ///
    /// # Errors
    /// The first thing that differs.
    pub fn guesses_for(&self, target: &Self) -> Result<(), Mismatch> {
        if self.kind != target.kind || self.kind == sys::LLAMA_VOCAB_TYPE_NONE {
            return Err(Mismatch::Kind {
                draft: name(self.kind),
                target: name(target.kind),
            });
        }
        if self.entries.len().abs_diff(target.entries.len()) > MOST_SIZE_DIFFERENCE {
            return Err(Mismatch::Size {
                draft: self.entries.len(),
                target: target.entries.len(),
            });
        }
        frame("begins", self.begins, target.begins)?;
        frame("ends", self.closes, target.closes)?;
        let pairs = self.entries.iter().zip(&target.entries).enumerate();
        for (token, (own, other)) in pairs.skip(FIRST_COMPARED) {
            own.is_like(other, token)?;
        }
        self.ends_in(target, "it", "the model")?;
        target.ends_in(self, "the model", "it")
    }

    /// Whether what ends an answer here does so there: either has one of several such tokens as the first.
    fn ends_in(
        &self,
        there: &Self,
        own_name: &'static str,
        other_name: &'static str,
    ) -> Result<(), Mismatch> {
        for (end, token) in &self.ends {
            let ends = usize::try_from(*token)
                .ok()
                .and_then(|token| there.entries.get(token))
                .is_some_and(|entry| entry.is_end);
            if !ends {
                return Err(Mismatch::End {
                    token: *token,
                    end: end.to_string(),
                    here: own_name,
                    there: other_name,
                });
            }
        }
        Ok(())
    }
}

impl Entry {
    fn is_like(&self, other: &Self, token: usize) -> Result<(), Mismatch> {
        let text = |entry: &Entry| String::from_utf8_lossy(&entry.text).into_owned();
        if self.text != other.text {
            return Err(Mismatch::Text {
                token,
                draft: text(self),
                target: text(other),
            });
        }
        if self.class != other.class {
            return Err(Mismatch::Class {
                token,
                text: text(self),
                draft: self.class.to_string(),
                target: other.class.to_string(),
            });
        }
        Ok(())
    }
}

/// The name of a tokenizer.
fn name(kind: sys::llama_vocab_type) -> &'static str {
    match kind {
        sys::LLAMA_VOCAB_TYPE_NONE => "none at all",
        sys::LLAMA_VOCAB_TYPE_SPM => "SentencePiece",
        sys::LLAMA_VOCAB_TYPE_BPE => "byte-pair encoding",
        sys::LLAMA_VOCAB_TYPE_WPM => "WordPiece",
        sys::LLAMA_VOCAB_TYPE_UGM => "a unigram model",
        sys::LLAMA_VOCAB_TYPE_RWKV => "RWKV's",
        sys::LLAMA_VOCAB_TYPE_PLAMO2 => "PLaMo-2's",
        _ => "of another kind",
    }
}

fn frame(does: &str, draft: Option<Token>, target: Option<Token>) -> Result<(), Mismatch> {
    let words = |token: Option<Token>| match token {
        Some(token) => format!("{does} texts with token {token}"),
        None => format!("{does} texts with none of its own"),
    };
    if draft == target {
        return Ok(());
    }
    Err(Mismatch::Frame {
        draft: words(draft),
        target: words(target),
    })
}

fn class(attributes: sys::llama_token_attr) -> Class {
    let has = |bits: sys::llama_token_attr| attributes & bits != 0;
    if has(sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_USER_DEFINED) {
        Class::Mark
    } else if has(sys::LLAMA_TOKEN_ATTR_BYTE) {
        Class::Byte
    } else if has(sys::LLAMA_TOKEN_ATTR_UNKNOWN) {
        Class::Unknown
    } else if has(sys::LLAMA_TOKEN_ATTR_UNUSED) {
        Class::Unused
    } else {
        Class::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llama::{ModelParams, Outline};
    use std::path::Path;

    const BEGIN: Token = 1;
    const END: Token = 10;

    fn vocabulary(words: usize) -> Vocabulary {
        let entries = (0..words).map(|token| Entry {
            text: format!("w{token}").into_bytes(),
            class: if token <= END as usize {
                Class::Mark
            } else {
                Class::Text
            },
            is_end: (9..=END as usize).contains(&token),
        });
        Vocabulary {
            kind: sys::LLAMA_VOCAB_TYPE_BPE,
            entries: entries.collect(),
            begins: Some(BEGIN),
            closes: None,
            ends: vec![(End::Text, END)],
        }
    }

    fn told(change: impl Fn(&mut Vocabulary)) -> String {
        let (target, mut draft) = (vocabulary(100), vocabulary(100));
        change(&mut draft);
        draft.guesses_for(&target).unwrap_err().to_string()
    }

    #[test]
    fn the_same_one_fits_and_one_that_is_padded() {
        let target = vocabulary(100);
        assert_eq!(target.guesses_for(&target), Ok(()));
        assert_eq!(vocabulary(228).guesses_for(&target), Ok(()));
        assert_eq!(target.guesses_for(&vocabulary(228)), Ok(()));
        let error = vocabulary(229).guesses_for(&target).unwrap_err();
        assert_eq!(error.to_string(), "it has 229 tokens and the model 100");
    }

    #[test]
    fn what_files_of_one_family_do_not_agree_on_is_no_matter() {
        let (target, mut draft) = (vocabulary(100), vocabulary(100));
        draft.entries[FIRST_COMPARED - 1].text = b"<pad>".to_vec();
        draft.ends = vec![(End::Text, 9), (End::Turn, END)];
        assert_eq!(draft.guesses_for(&target), Ok(()));
        assert_eq!(target.guesses_for(&draft), Ok(()));
    }

    #[test]
    fn the_first_difference_is_told() {
        for (told, words) in [
            (
                told(|draft| draft.entries[50].text = b"other".to_vec()),
                r#"token 50 is "other" in it and "w50" in the model"#,
            ),
            (
                told(|draft| draft.entries[50].class = Class::Mark),
                r#"token 50 ("w50") is a mark in it and text in the model"#,
            ),
            (
                told(|draft| draft.kind = sys::LLAMA_VOCAB_TYPE_SPM),
                "its tokenizer is SentencePiece and the model's is byte-pair encoding",
            ),
            (
                told(|draft| draft.begins = None),
                "it begins texts with none of its own and the model begins texts with token 1",
            ),
            (
                told(|draft| draft.closes = Some(END)),
                "it ends texts with token 10 and the model ends texts with none of its own",
            ),
            (
                told(|draft| draft.ends = vec![(End::Turn, 20)]),
                "token 20 ends a turn in it and nothing in the model",
            ),
            (
                told(|draft| draft.entries[END as usize].is_end = false),
                "token 10 ends a text in the model and nothing in it",
            ),
        ] {
            assert_eq!(told, words);
        }
    }

    #[test]
    fn what_marks_something_is_one_class() {
        assert_eq!(class(sys::LLAMA_TOKEN_ATTR_CONTROL), Class::Mark);
        assert_eq!(
            class(sys::LLAMA_TOKEN_ATTR_USER_DEFINED | sys::LLAMA_TOKEN_ATTR_RSTRIP),
            Class::Mark
        );
        assert_eq!(class(sys::LLAMA_TOKEN_ATTR_BYTE), Class::Byte);
        assert_eq!(class(sys::LLAMA_TOKEN_ATTR_NORMAL), Class::Text);
    }

    #[test]
    fn the_tiny_pair_fits() {
        let assets = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../mesh-llm/assets"));
        let read = |name: &str| {
            let outline = Outline::load(&assets.join(name), &ModelParams::default());
            Vocabulary::of(outline.unwrap().model())
        };
        let (target, draft) = (read("mesh-tiny.gguf"), read("mesh-tiny-draft.gguf"));
        assert_eq!(draft.guesses_for(&target), Ok(()));
        assert!(!target.ends.is_empty() && target.entries.len() > 1000);
    }
}
