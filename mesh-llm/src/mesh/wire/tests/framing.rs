//! Bytes come in any pieces, and need not be messages.

use super::*;
use crate::mesh::wire::frame::{FrameError, Reader, encode};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::select;
use serde::de::DeserializeOwned;

/// All messages in these bytes, and what is left, as they come in pieces that end at these places.
fn in_pieces(bytes: &[u8], ends: &[usize]) -> (Vec<Control>, Vec<u8>) {
    let mut ends: Vec<usize> = ends.iter().map(|end| end % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let (mut reader, mut messages, mut from) = (Reader::<Control>::default(), Vec::new(), 0);
    for end in ends {
        reader.push(&bytes[from..end]);
        from = end;
        while let Some(message) = reader.pop().unwrap() {
            messages.push(message);
        }
    }
    (messages, reader.into_rest())
}

/// Reads until there is nothing more to be had; keeps no more memory than has come.
fn exhaust<M: DeserializeOwned + Bounded>(bytes: &[u8]) -> Result<usize, FrameError> {
    let mut reader = Reader::<M>::default();
    let (mut messages, mut came) = (0, 0);
    for piece in bytes.chunks(7) {
        reader.push(piece);
        came += piece.len();
        // A vector grows by doubling, and has eight bytes at least.
        assert!(reader.capacity() <= (2 * came).max(8));
        while reader.pop()?.is_some() {
            messages += 1;
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_messages(
        said in vec(select(controls()), 0..6),
        ends in vec(any::<usize>(), 0..12),
        rest in vec(any::<u8>(), 0..4),
    ) {
        let mut bytes: Vec<u8> = said.iter().flat_map(|message| encode(message).unwrap()).collect();
        bytes.extend(&rest);
        let (heard, left) = in_pieces(&bytes, &ends);
        prop_assert_eq!(heard, said);
        prop_assert_eq!(left, rest);
    }

    #[test]
    fn whoever_reads_what_is_wanted_takes_nothing_of_what_follows(
        said in select(controls()),
        most in 1_usize..40,
        rest in vec(any::<u8>(), 0..9),
    ) {
        let mut bytes = encode(&said).unwrap();
        bytes.extend(&rest);
        let (mut reader, mut left) = (Reader::<Control>::default(), bytes.as_slice());
        let heard = loop {
            if let Some(message) = reader.pop().unwrap() {
                break message;
            }
            let (piece, after) = left.split_at(reader.wants().clamp(1, most));
            reader.push(piece);
            left = after;
        };
        prop_assert_eq!(heard, said);
        prop_assert_eq!(left, &rest);
        prop_assert!(reader.into_rest().is_empty());
    }

    #[test]
    fn any_bytes_are_messages_or_not(bytes in vec(any::<u8>(), 0..300)) {
        let _ = exhaust::<Hello>(&bytes);
        let _ = exhaust::<Answer>(&bytes);
        let _ = exhaust::<Control>(&bytes);
        let _ = exhaust::<Open>(&bytes);
    }

    #[test]
    fn any_bytes_of_the_right_length_are_a_message_or_not(bytes in vec(any::<u8>(), 0..300)) {
        let frame = [&(bytes.len() as u32).to_le_bytes(), bytes.as_slice()].concat();
        let _ = exhaust::<Hello>(&frame);
        let _ = exhaust::<Answer>(&frame);
        let _ = exhaust::<Control>(&frame);
        let _ = exhaust::<Open>(&frame);
    }

    #[test]
    fn a_message_with_one_byte_changed_is_a_message_or_not(
        said in select(controls()),
        place in any::<usize>(),
        byte in any::<u8>(),
    ) {
        let mut frame = encode(&said).unwrap();
        let place = place % frame.len();
        frame[place] = byte;
        let _ = exhaust::<Control>(&frame);
    }
}

fn refuses_early<M: DeserializeOwned + Bounded>() {
    let mut reader = Reader::<M>::default();
    let bytes = M::MOST_BYTES + 1;
    reader.push(&(bytes as u32).to_le_bytes());
    let most = M::MOST_BYTES;
    assert_eq!(reader.pop().err(), Some(FrameError::TooLong { bytes, most }));
    let mut reader = Reader::<M>::default();
    reader.push(&u32::MAX.to_le_bytes());
    assert!(matches!(reader.pop(), Err(FrameError::TooLong { .. })));
    // The longest is waited for.
    let mut reader = Reader::<M>::default();
    reader.push(&(most as u32).to_le_bytes());
    assert!(matches!(reader.pop(), Ok(None)));
    assert_eq!(reader.wants(), most);
    assert!(reader.capacity() < 100);
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_bytes_come() {
    refuses_early::<Hello>();
    refuses_early::<Answer>();
    refuses_early::<Control>();
    refuses_early::<Open>();
}

#[test]
fn what_is_not_complete_waits() {
    for message in controls() {
        let frame = encode(&message).unwrap();
        for end in 0..frame.len() {
            let mut reader = Reader::<Control>::default();
            reader.push(&frame[..end]);
            assert_eq!(reader.pop(), Ok(None), "{message:?} until {end}");
            assert!(reader.wants() >= 1 && reader.wants() <= frame.len() - end);
        }
    }
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let model = "m".repeat(Open::MOST_BYTES);
    let refused = encode(&Open::Http { model }).unwrap_err();
    assert!(matches!(refused, FrameError::TooLong { bytes, most } if bytes > most));
}

#[test]
fn a_list_that_claims_more_than_there_is_makes_no_sense() {
    for variant in [2, 3, 4] {
        // 4,294,967,295 of them.
        let body = [variant, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
        let mut reader = Reader::<Control>::default();
        reader.push(&(body.len() as u32).to_le_bytes());
        reader.push(&body);
        assert!(matches!(reader.pop(), Err(FrameError::Senseless(_))));
    }
}
