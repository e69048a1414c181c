//! What other machines say to people.

/// Words of another machine, as far as they are for people: not for a terminal, and no more than a few lines.
pub fn readable(words: &str) -> String {
    const MOST: usize = 400;
    words
        .chars()
        .filter(|letter| !letter.is_control())
        .take(MOST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_machine_says_does_nothing_to_a_terminal() {
        assert_eq!(readable("no\x1b[2J\nno"), "no[2Jno");
        assert_eq!(readable(&"x".repeat(1 << 20)).len(), 400);
    }
}
