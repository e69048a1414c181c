//! Uploads as a worker decodes them: whole, compressed, or as differences from what it kept. Pure.

use super::{Coding, LONGEST_KEPT, MOST_KEPT, MOST_KEPT_BYTES, difference};

/// What a worker keeps for one queue.
#[derive(Debug)]
pub struct Uploads(Vec<Option<Vec<u8>>>);

impl Default for Uploads {
    fn default() -> Self {
        Self(vec![None; MOST_KEPT])
    }
}

impl Uploads {
    /// The value of so many bytes that `payload` codes; what it is a difference from is no longer kept.
    /// `None` where it codes none.
    pub fn decode(&mut self, bytes: u64, coding: Coding, payload: &[u8]) -> Option<Vec<u8>> {
        let length = usize::try_from(bytes)
            .ok()
            .filter(|length| *length <= LONGEST_KEPT)?;
        let value = match coding {
            Coding::Plain if payload.len() == length => payload.to_vec(),
            Coding::Plain => return None,
            Coding::Lz4 => {
                let mut value = vec![0; length];
                let count = lz4_flex::block::decompress_into(payload, &mut value).ok()?;
                value.truncate(count);
                value
            }
            Coding::Changed(number) => {
                let mut value = self.0.get_mut(usize::from(number))?.take()?;
                if value.len() != length || !difference::apply(&mut value, payload) {
                    return None;
                }
                value
            }
        };
        (value.len() == length).then_some(value)
    }

    /// Keeps a value under a number. `false` where there is no such number, or too much is kept.
    #[must_use]
    pub fn keep(&mut self, number: u8, value: Vec<u8>) -> bool {
        let Some(kept) = self.0.get_mut(usize::from(number)) else {
            return false;
        };
        *kept = Some(value);
        self.bytes() <= MOST_KEPT_BYTES
    }

    /// Bytes of all that is kept.
    pub fn bytes(&self) -> usize {
        self.0.iter().flatten().map(Vec::len).sum()
    }
}
