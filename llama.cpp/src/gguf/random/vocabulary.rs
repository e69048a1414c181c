//! A vocabulary for random models, in the form of llama.cpp's SentencePiece tokenizer (`llama`): it
//! takes any text, and whatever a model generates is valid UTF-8.

use std::collections::HashSet;

use super::super::{Array, Fault};
use super::{ByteTokens, Spec};

/// Token types, as in `llama.h`'s `enum llama_token_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    Byte = 6,
}

/// How readily a random model generates a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chance {
    /// Like any other.
    Usual,
    /// As readily as the specification asks for.
    EndOfGeneration,
    /// In practice never.
    Never,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) kind: Kind,
    pub(super) chance: Chance,
}

/// Tokens and their numbers.
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<Token>,
}

/// The numbers of the tokens with a meaning.
pub(super) const UNKNOWN: u32 = 0;
pub(super) const BEGIN_OF_SEQUENCE: u32 = 1;
pub(super) const END_OF_SEQUENCE: u32 = 2;
pub(super) const END_OF_TURN: u32 = 4;

const SPECIAL: [(&str, Kind, Chance); 5] = [
    ("<unk>", Kind::Unknown, Chance::Never),
    ("<s>", Kind::Control, Chance::Never),
    ("</s>", Kind::Control, Chance::EndOfGeneration),
    ("<|im_start|>", Kind::Control, Chance::Never),
    ("<|im_end|>", Kind::Control, Chance::EndOfGeneration),
];

/// How SentencePiece writes a space.
const SPACE: char = '\u{2581}';

/// Some characters beyond ASCII, so that text of two, three and four bytes a character is generated.
const BEYOND_ASCII: [char; 8] = ['é', 'ü', 'ß', 'ñ', '→', '中', '文', '😀'];

const WORDS: [&str; 56] = [
    "the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "as", "with",
    "his", "they", "be", "at", "one", "have", "this", "from", "or", "had", "by", "hot", "but", "some",
    "what", "there", "we", "can", "out", "other", "were", "all", "your", "when", "up", "use", "word", "how",
    "said", "an", "each", "she", "which", "do", "their", "time", "if", "will", "way", "about",
];

impl Vocabulary {
    /// A vocabulary of the size that the specification asks for, padded with made-up words.
    pub(super) fn new(spec: &Spec) -> Result<Self, Fault> {
        let mut tokens: Vec<Token> = SPECIAL
            .iter()
            .map(|&(text, kind, chance)| Token {
                text: text.to_owned(),
                kind,
                chance,
            })
            .collect();
        tokens.extend((0..=u8::MAX).filter_map(|byte| unprintable(byte, spec.byte_tokens)));
        let mut seen = HashSet::new();
        let printable = ('!'..='~').chain([SPACE, '\n', '\t']).chain(BEYOND_ASCII);
        for text in printable
            .map(String::from)
            .chain(WORDS.iter().flat_map(|word| prefixes(word)))
        {
            if seen.insert(text.clone()) {
                tokens.push(usual(text));
            }
        }
        let size = spec.vocabulary_size as usize;
        if size < tokens.len() {
            return Err(Fault::Specification {
                what: format!(
                    "a vocabulary of {size} tokens: it needs {} for all characters and common words",
                    tokens.len()
                ),
            });
        }
        let missing = size - tokens.len();
        tokens.extend(
            made_up_words()
                .filter(|word| !seen.contains(word))
                .take(missing)
                .map(usual),
        );
        if tokens.len() < size {
            return Err(Fault::Specification {
                what: format!(
                    "a vocabulary of {size} tokens: at most {} are possible",
                    tokens.len()
                ),
            });
        }
        Ok(Self { tokens })
    }

    /// The texts, for `tokenizer.ggml.tokens`.
    pub(super) fn texts(&self) -> Array {
        Array::of_strings(self.tokens.iter().map(|token| &token.text))
    }

    /// The scores, for `tokenizer.ggml.scores`: earlier tokens are merged first.
    pub(super) fn scores(&self) -> Array {
        Array::of_f32((0..self.tokens.len()).map(|index| -(index as f32)))
    }

    /// The types, for `tokenizer.ggml.token_type`.
    pub(super) fn kinds(&self) -> Array {
        Array::of_i32(self.tokens.iter().map(|token| token.kind as i32))
    }
}

fn usual(text: String) -> Token {
    Token {
        text,
        kind: Kind::Normal,
        chance: Chance::Usual,
    }
}

/// The token for a byte that is no printable character of its own. The tokenizer falls back to these.
fn unprintable(byte: u8, form: ByteTokens) -> Option<Token> {
    let printable = matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    (!printable).then(|| Token {
        text: format!("<0x{byte:02X}>"),
        kind: match form {
            // The tokenizer finds the token by its text; its type only decides what it decodes to.
            ByteTokens::Text => Kind::Normal,
            ByteTokens::Bytes => Kind::Byte,
        },
        chance: Chance::Never,
    })
}

/// The word with a space before it, and all that it begins with: the tokenizer builds a token from
/// shorter ones.
fn prefixes(word: &str) -> impl Iterator<Item = String> {
    (1..=word.len()).map(move |end| format!("{SPACE}{}", &word[..end]))
}

/// Words such as " kabero". The tokenizer never makes these from text, as their beginnings are no
/// tokens; a model generates them.
fn made_up_words() -> impl Iterator<Item = String> {
    const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
    const VOWELS: &[u8] = b"aeiou";
    const SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();
    let syllable = |index: usize| {
        let index = index % SYLLABLES;
        let consonant = CONSONANTS[index / VOWELS.len()];
        [consonant, VOWELS[index % VOWELS.len()]].map(char::from)
    };
    (0..SYLLABLES.pow(3)).map(move |index| {
        let mut word = String::from(SPACE);
        for digit in [index, index / SYLLABLES, index / SYLLABLES.pow(2)] {
            word.extend(syllable(digit));
        }
        word
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Architecture, small};
    use super::*;

    fn vocabulary(size: u32) -> Result<Vocabulary, Fault> {
        Vocabulary::new(&Spec {
            vocabulary_size: size,
            ..small(Architecture::Llama, 1)
        })
    }

    #[test]
    fn has_the_size_asked_for_and_no_text_twice() {
        for size in [512, 52_000, 151_936] {
            let vocabulary = vocabulary(size).unwrap();
            let texts: HashSet<&str> = vocabulary.tokens.iter().map(|t| t.text.as_str()).collect();
            assert_eq!(texts.len(), size as usize);
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        assert!(vocabulary(100).is_err());
        assert!(vocabulary(1_000_000).is_err());
    }

    #[test]
    fn every_character_of_printable_ascii_and_every_other_byte_is_a_token() {
        let vocabulary = vocabulary(512).unwrap();
        let texts: HashSet<&str> = vocabulary.tokens.iter().map(|t| t.text.as_str()).collect();
        for byte in 0..=u8::MAX {
            let text = match byte {
                b' ' => SPACE.to_string(),
                b'\n' | b'\t' | b'!'..=b'~' => char::from(byte).to_string(),
                _ => format!("<0x{byte:02X}>"),
            };
            assert!(texts.contains(text.as_str()), "{text:?}");
        }
    }

    #[test]
    fn special_tokens_have_their_numbers() {
        let tokens = vocabulary(512).unwrap().tokens;
        let text = |number: u32| tokens[number as usize].text.as_str();
        assert_eq!(text(UNKNOWN), "<unk>");
        assert_eq!(text(BEGIN_OF_SEQUENCE), "<s>");
        assert_eq!(text(END_OF_SEQUENCE), "</s>");
        assert_eq!(text(END_OF_TURN), "<|im_end|>");
    }
}
