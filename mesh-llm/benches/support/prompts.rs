//! What is asked. Words are those of the random models' vocabulary, a token each.

const WORDS: [&str; 16] = [
    "the", "time", "which", "how", "each", "about", "from", "word", "some", "their", "other", "what", "said",
    "there", "have", "out",
];

/// A text of so many words that begins unlike that of any other `seed`, so that no cache helps.
pub fn text(seed: usize, words: usize) -> String {
    let mut text = format!("{seed}:");
    for index in 0..words {
        text.push(' ');
        text.push_str(WORDS[(index * 7 + seed * 5 + index / 16) % WORDS.len()]);
    }
    text
}
