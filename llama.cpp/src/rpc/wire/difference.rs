//! The difference of two byte strings of one length: pairs of numbers, how many bytes are as before
//! and how many are new, each in LEB128, followed by the new ones; what is left at the end is as before.

/// Bytes that are compared at once.
const WORD: usize = 8;

/// Appends the difference of `new` from `old` to `out`. Gives up, and leaves what it has written, as
/// soon as that is more than `most` bytes: `false`.
///
/// # Panics
/// Where the lengths differ.
pub fn append(out: &mut Vec<u8>, old: &[u8], new: &[u8], most: usize) -> bool {
    assert_eq!(old.len(), new.len(), "differences are of one length");
    let start = out.len();
    let mut from = 0;
    let mut words = old.chunks(WORD).zip(new.chunks(WORD)).enumerate().peekable();
    while let Some((index, (before, after))) = words.next() {
        if before == after {
            continue;
        }
        let begin = index * WORD;
        let mut end = begin + after.len();
        while let Some((_, (before, after))) = words.peek() {
            if before == after {
                break;
            }
            end += after.len();
            words.next();
        }
        let (begin, end) = trim(old, new, begin, end);
        append_number(out, begin - from);
        append_number(out, end - begin);
        out.extend_from_slice(&new[begin..end]);
        from = end;
        if out.len() - start > most {
            return false;
        }
    }
    true
}

/// Leaves out what is alike at both ends.
fn trim(old: &[u8], new: &[u8], mut begin: usize, mut end: usize) -> (usize, usize) {
    while old[begin] == new[begin] {
        begin += 1;
    }
    while old[end - 1] == new[end - 1] {
        end -= 1;
    }
    (begin, end)
}

/// Changes `bytes` by `difference`. `false`, with `bytes` half changed, where it is none for them.
#[must_use]
pub fn apply(bytes: &mut [u8], mut difference: &[u8]) -> bool {
    let mut rest = bytes;
    while !difference.is_empty() {
        let (Some(same), Some(new)) = (take_number(&mut difference), take_number(&mut difference)) else {
            return false;
        };
        let Some((place, behind)) = rest
            .get_mut(same..)
            .and_then(|from| from.split_at_mut_checked(new))
        else {
            return false;
        };
        let Some((values, more)) = difference.split_at_checked(new) else {
            return false;
        };
        place.copy_from_slice(values);
        rest = behind;
        difference = more;
    }
    true
}

fn append_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0_usize;
    for position in 0..5 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_difference_makes_the_new_of_the_old(
            old in prop::collection::vec(any::<u8>(), 0..400),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        ) {
            let mut new = old.clone();
            for (place, value) in changes {
                if !new.is_empty() {
                    let place = place.index(new.len());
                    new[place] = value;
                }
            }
            let mut difference = Vec::new();
            prop_assert!(append(&mut difference, &old, &new, usize::MAX));
            let mut changed = old;
            prop_assert!(apply(&mut changed, &difference));
            prop_assert_eq!(changed, new);
        }

        #[test]
        fn no_bytes_break_it(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64),
            difference in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let length = bytes.len();
            let _ = apply(&mut bytes, &difference);
            prop_assert_eq!(bytes.len(), length);
        }
    }

    #[test]
    fn one_cell_of_a_mask_is_a_few_bytes() {
        let old = vec![0xff; 16_384];
        let mut new = old.clone();
        new[9000] = 0;
        new[9001] = 0;
        let mut difference = Vec::new();
        assert!(append(&mut difference, &old, &new, usize::MAX));
        assert!(difference.len() <= 6, "{difference:?}");
    }
}
