//! What a model makes of the vectors of a text's tokens: a vector, or how well it answers another text.

use llama_cpp_sys_2 as sys;

use super::Model;

impl Model {
    /// How the file says that token vectors become one vector.
    pub fn pooling(&self) -> Option<i32> {
        let key = format!("{}.pooling_type", self.architecture());
        self.metadata(&key).and_then(|value| value.parse().ok())
    }

    /// Whether the model says how well a text answers another, in place of making a vector of it.
    pub fn ranks(&self) -> bool {
        self.pooling() == Some(sys::LLAMA_POOLING_TYPE_RANK)
    }

    /// Numbers that pooling makes of a text.
    pub(super) fn pooled_width(&self) -> usize {
        if self.ranks() {
            // SAFETY: reads a field.
            unsafe { sys::llama_model_n_cls_out(self.as_ptr()) as usize }
        } else {
            self.embedding_width() as usize
        }
    }

    /// Whether the first number that ranking gives is a probability: llama.cpp ends the graphs of these
    /// architectures, whose classes are yes and no, in a softmax.
    pub fn ranks_by_probability(&self) -> bool {
        matches!(self.architecture().as_str(), "qwen3" | "qwen3vl")
    }
}
