//! What ggml's CPU backend can do with the types of elements. The tests compare it with ggml.

use llama_cpp_sys_2 as sys;

use crate::gguf::TensorType;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// ggml's number.
    pub(super) number: u32,
    /// Elements of a block.
    pub(super) block: u64,
    /// Bytes of a block.
    pub(super) bytes: u64,
}

impl Element {
    /// The type of that number, if it is one.
    pub(super) fn of(number: u32) -> Option<Self> {
        let format = TensorType::from_id(number)?;
        Some(Self {
            number,
            block: format.block_elements(),
            bytes: format.block_bytes(),
        })
    }

    /// What its address must be a multiple of, in bytes.
    pub(super) fn alignment(self) -> u64 {
        match self.number {
            // Their blocks begin with a 32-bit float.
            sys::GGML_TYPE_Q8_K => 4,
            _ if self.block == 1 => self.bytes,
            // The others begin with 16-bit floats, or have nothing but bytes.
            _ if self.bytes.is_multiple_of(2) => 2,
            _ => 1,
        }
    }

    /// Whether several elements share a block.
    pub(super) fn is_quantized(self) -> bool {
        self.block > 1
    }

    /// Whether it is a float that ggml computes with as it is.
    pub(super) fn is_float(self) -> bool {
        [sys::GGML_TYPE_F32, sys::GGML_TYPE_F16, sys::GGML_TYPE_BF16].contains(&self.number)
    }

    /// Whether the CPU backend can turn it into F32 (`to_float`). F32 itself needs no such function.
    pub(super) fn can_be_read(self) -> bool {
        if self.is_quantized() {
            ![sys::GGML_TYPE_Q8_1, sys::GGML_TYPE_Q8_K].contains(&self.number)
        } else {
            [sys::GGML_TYPE_F16, sys::GGML_TYPE_BF16].contains(&self.number)
        }
    }

    /// Whether the CPU backend can make it of F32 (`from_float`).
    pub(super) fn can_be_made(self) -> bool {
        const CANNOT: [u32; 7] = [
            sys::GGML_TYPE_IQ1_S,
            sys::GGML_TYPE_IQ1_M,
            sys::GGML_TYPE_IQ2_XXS,
            sys::GGML_TYPE_IQ2_XS,
            sys::GGML_TYPE_IQ2_S,
            sys::GGML_TYPE_IQ3_XXS,
            sys::GGML_TYPE_IQ3_S,
        ];
        if self.is_quantized() {
            !CANNOT.contains(&self.number)
        } else {
            self.is_float() || self.number == sys::GGML_TYPE_I32
        }
    }

    /// Whether the CPU backend can multiply matrices of it (`vec_dot`).
    pub(super) fn can_be_multiplied(self) -> bool {
        if self.is_quantized() {
            ![sys::GGML_TYPE_Q8_1, sys::GGML_TYPE_Q8_K].contains(&self.number)
        } else {
            self.is_float()
        }
    }
}
