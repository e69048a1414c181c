//! The formats in which ggml stores the numbers of a tensor.

/// A format of ggml, by its number in GGUF files.
///
/// A format stores a row in blocks of [`block_elements`](Self::block_elements) numbers, each of them
/// [`block_bytes`](Self::block_bytes) long; for plain number formats a block is one number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TensorType(Row);

/// One row of ggml's table `type_traits`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Row {
    id: u32,
    name: &'static str,
    block_elements: u32,
    block_bytes: u32,
}

macro_rules! tensor_types {
    ($($constant:ident = $id:literal, $name:literal, $elements:literal, $bytes:literal;)*) => {
        impl TensorType {
            $(
                #[doc = concat!("`", $name, "`: ", $bytes, " bytes for ", $elements, " elements.")]
                pub const $constant: Self = Self(Row {
                    id: $id,
                    name: $name,
                    block_elements: $elements,
                    block_bytes: $bytes,
                });
            )*

            /// Every format that a GGUF file of today can hold, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

// The numbers that are missing belonged to formats that ggml has dropped.
tensor_types! {
    F32 = 0, "f32", 1, 4;
    F16 = 1, "f16", 1, 2;
    Q4_0 = 2, "q4_0", 32, 18;
    Q4_1 = 3, "q4_1", 32, 20;
    Q5_0 = 6, "q5_0", 32, 22;
    Q5_1 = 7, "q5_1", 32, 24;
    Q8_0 = 8, "q8_0", 32, 34;
    Q8_1 = 9, "q8_1", 32, 36;
    Q2_K = 10, "q2_K", 256, 84;
    Q3_K = 11, "q3_K", 256, 110;
    Q4_K = 12, "q4_K", 256, 144;
    Q5_K = 13, "q5_K", 256, 176;
    Q6_K = 14, "q6_K", 256, 210;
    Q8_K = 15, "q8_K", 256, 292;
    IQ2_XXS = 16, "iq2_xxs", 256, 66;
    IQ2_XS = 17, "iq2_xs", 256, 74;
    IQ3_XXS = 18, "iq3_xxs", 256, 98;
    IQ1_S = 19, "iq1_s", 256, 50;
    IQ4_NL = 20, "iq4_nl", 32, 18;
    IQ3_S = 21, "iq3_s", 256, 110;
    IQ2_S = 22, "iq2_s", 256, 82;
    IQ4_XS = 23, "iq4_xs", 256, 136;
    I8 = 24, "i8", 1, 1;
    I16 = 25, "i16", 1, 2;
    I32 = 26, "i32", 1, 4;
    I64 = 27, "i64", 1, 8;
    F64 = 28, "f64", 1, 8;
    IQ1_M = 29, "iq1_m", 256, 56;
    BF16 = 30, "bf16", 1, 2;
    TQ1_0 = 34, "tq1_0", 256, 54;
    TQ2_0 = 35, "tq2_0", 256, 66;
    MXFP4 = 39, "mxfp4", 32, 17;
    NVFP4 = 40, "nvfp4", 64, 36;
    Q1_0 = 41, "q1_0", 128, 18;
    Q2_0 = 42, "q2_0", 64, 18;
}

impl TensorType {
    /// The format with this number, if a GGUF file of today can hold it.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL
            .binary_search_by_key(&id, |format| format.id())
            .ok()
            .map(|index| Self::ALL[index])
    }

    /// The number of the format in GGUF files and in ggml's `enum ggml_type`.
    pub fn id(self) -> u32 {
        self.0.id
    }

    /// ggml's name for the format, such as `q8_0`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// How many numbers a block holds.
    pub fn block_elements(self) -> u64 {
        self.0.block_elements.into()
    }

    /// How many bytes a block takes.
    pub fn block_bytes(self) -> u64 {
        self.0.block_bytes.into()
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

/// Why a shape and a format make no tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ShapeFault {
    /// The sizes multiply to more than a file could hold.
    TooLarge,
    /// A row does not consist of whole blocks.
    PartialBlock,
}

/// The bytes that a tensor of this shape (innermost dimension first) and format takes.
pub(super) fn byte_size(shape: &[u64], format: TensorType) -> Result<u64, ShapeFault> {
    let row = shape.first().copied().unwrap_or(1);
    if row % format.block_elements() != 0 {
        return Err(ShapeFault::PartialBlock);
    }
    // A zero must not hide the overflow of the other sizes: ggml multiplies them in its own order.
    let largest = shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size.max(1)))
        .filter(|&product| i64::try_from(product).is_ok())
        .ok_or(ShapeFault::TooLarge)?;
    let elements = if shape.contains(&0) { 0 } else { largest };
    (elements / format.block_elements())
        .checked_mul(format.block_bytes())
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or(ShapeFault::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_number_and_dropped_ones_are_not() {
        for &format in TensorType::ALL {
            assert_eq!(TensorType::from_id(format.id()), Some(format));
        }
        for dropped in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(TensorType::from_id(dropped), None);
        }
    }

    #[test]
    fn sizes_count_whole_blocks() {
        assert_eq!(byte_size(&[], TensorType::F32), Ok(4));
        assert_eq!(byte_size(&[64, 3], TensorType::Q8_0), Ok(2 * 34 * 3));
        assert_eq!(byte_size(&[0, 3], TensorType::Q8_0), Ok(0));
        assert_eq!(byte_size(&[33], TensorType::Q8_0), Err(ShapeFault::PartialBlock));
    }

    #[test]
    fn overflowing_shapes_are_refused_even_beside_a_zero() {
        let large = 1 << 40;
        assert_eq!(
            byte_size(&[large, large], TensorType::F32),
            Err(ShapeFault::TooLarge)
        );
        assert_eq!(
            byte_size(&[0, large, large], TensorType::F32),
            Err(ShapeFault::TooLarge)
        );
        assert_eq!(byte_size(&[1 << 62], TensorType::F64), Err(ShapeFault::TooLarge));
    }
}
