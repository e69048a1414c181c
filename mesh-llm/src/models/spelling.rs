//! Names as people write them: `Qwen2.5-32B`, `qwen2.5 32b` and `32b` all speak of one model. Pure.

/// How well a name fits what was asked for, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// The same but for spelling.
    Same,
    /// The name begins with what was asked for.
    Beginning,
    /// All that was asked for, in one piece somewhere in the name.
    Piece,
    /// All that was asked for, in this order, with other words between.
    Scattered,
}

/// The words of a name: letters, and numbers with their decimal point, without what stands between.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = None;
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let next_is_digit = characters.peek().is_some_and(char::is_ascii_digit);
        let kind = if character.is_ascii_digit() {
            Some(Kind::Number)
        } else if character.is_alphanumeric() {
            Some(Kind::Letters)
        } else if character == '.' && previous == Some(Kind::Number) && next_is_digit {
            Some(Kind::Number)
        } else {
            None
        };
        if kind.is_some() {
            match words.last_mut().filter(|_| kind == previous) {
                Some(word) => word.extend(character.to_lowercase()),
                None => words.push(character.to_lowercase().collect()),
            }
        }
        previous = kind;
    }
    words
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letters,
    Number,
}

/// How the name fits what was asked for, if it does.
pub(super) fn fit(asked: &str, name: &str) -> Option<Fit> {
    let (asked, name) = (words(asked), words(name));
    if asked.is_empty() {
        return None;
    }
    if asked == name {
        Some(Fit::Same)
    } else if name.starts_with(&asked) {
        Some(Fit::Beginning)
    } else if name.windows(asked.len()).any(|piece| piece == asked) {
        Some(Fit::Piece)
    } else {
        let mut rest = name.iter();
        asked
            .iter()
            .all(|word| rest.any(|other| other == word))
            .then_some(Fit::Scattered)
    }
}

/// Those of `items` whose name fits best: several where it cannot be told which was meant.
pub(super) fn best<'a, T>(asked: &str, items: &'a [T], name: impl Fn(&T) -> &str) -> Vec<&'a T> {
    let fits: Vec<_> = items
        .iter()
        .filter_map(|item| Some((fit(asked, name(item))?, item)))
        .collect();
    let best = fits.iter().map(|(fit, _)| *fit).min();
    fits.into_iter()
        .filter(|(fit, _)| Some(*fit) == best)
        .map(|(_, item)| item)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_where_people_do_not_care() {
        assert_eq!(
            words("Qwen2.5-32B_q4_K.M"),
            ["qwen", "2.5", "32", "b", "q", "4", "k", "m"]
        );
        assert_eq!(words("v1. 2"), ["v", "1", "2"]);
        assert_eq!(words("…"), Vec::<String>::new());
    }

    #[test]
    fn a_number_is_not_found_inside_another() {
        assert_eq!(fit("2b", "Qwen-32B"), None);
        assert_eq!(fit("8b", "Qwen3.5-0.8B"), None);
        assert_eq!(fit("32b", "Qwen-32B"), Some(Fit::Piece));
    }

    #[test]
    fn what_fits_best_is_meant() {
        let names = ["Qwen2.5-Coder-32B-Instruct", "Qwen2.5-32B-Instruct", "Qwen3-32B"];
        let best = |asked| best(asked, &names, |name| name);
        assert_eq!(best("qwen2.5 32b"), [&names[1]]);
        assert_eq!(best("coder 32b"), [&names[0]]);
        assert_eq!(best("qwen3:32b"), [&names[2]]);
        assert_eq!(best("32b"), names.each_ref());
        assert_eq!(best("llama"), Vec::<&&str>::new());
        assert_eq!(best(""), Vec::<&&str>::new());
    }

    proptest! {
        #[test]
        fn spelling_does_not_matter(parts in prop::collection::vec("[a-z]{1,5}|[0-9]{1,3}", 1..6)) {
            let (one, other) = (parts.join("-"), parts.join(" ").to_uppercase());
            prop_assert_eq!(fit(&one, &other), Some(Fit::Same));
            prop_assert!(fit(&parts[0], &one).is_some());
        }
    }
}
