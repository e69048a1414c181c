//! Logits of a step, by the index of their token in its batch.

/// Logits that were computed elsewhere and came after the step that asked for them had returned.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// For each token of the batch the row that its logits are in.
    index: Vec<Option<usize>>,
    width: usize,
    logits: Vec<f32>,
}

impl Rows {
    /// Rows that are still to come: `index` says which row a token of the batch has, `width` how many
    /// numbers a row is.
    pub(super) fn expected(index: Vec<Option<usize>>, width: usize) -> Self {
        Self {
            index,
            width,
            logits: Vec::new(),
        }
    }

    /// Takes the next bytes, in the order in which they were computed.
    pub fn append(&mut self, bytes: &[u8]) {
        let (numbers, _) = bytes.as_chunks();
        self.logits
            .extend(numbers.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
    }

    /// The logits of the token at `index` of the batch; `None` if none were asked for there.
    pub fn get(&self, index: usize) -> Option<&[f32]> {
        let row = (*self.index.get(index)?)?;
        self.logits.get(row * self.width..(row + 1) * self.width)
    }
}

/// A place where llama.cpp expects numbers that are still on their way.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its address, in llama.cpp's buffer of logits.
    pub address: *mut u8,
    /// How many bytes.
    pub bytes: usize,
}
