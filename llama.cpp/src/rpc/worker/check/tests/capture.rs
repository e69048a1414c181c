//! Graphs that llama.cpp itself makes, taken from the scheduler while it computes them.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::ptr;

use llama_cpp_sys_2 as sys;

use super::Shelf;
use super::mutate::isolated;
use crate::rpc::graph::{BufferId, Graph, Place, Tensor, View};
use crate::rpc::worker::check::{Layout, Placement, ops};

/// A graph, its buffers, and the data of those of its tensors that may have to be checked.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) graph: Graph,
    pub(super) shelf: Shelf,
    /// Data of integer tensors that the graph does not compute, and of what it sorts, by index.
    pub(super) data: HashMap<u32, Vec<u8>>,
    indices: HashMap<usize, u32>,
    buffers: HashMap<usize, BufferId>,
}

/// How to run a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) flash: bool,
    pub(super) cache: sys::ggml_type,
    pub(super) sequences: u32,
    pub(super) unified: bool,
    pub(super) embeddings: bool,
    pub(super) repack: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            flash: false,
            cache: sys::GGML_TYPE_F16,
            sequences: 1,
            unified: false,
            embeddings: false,
            repack: true,
        }
    }
}

impl Captured {
    /// A tensor that is not allocated, and its sources, each in a buffer of its own.
    pub(super) fn alone(pointer: *mut sys::ggml_tensor) -> Graph {
        let mut captured = Self::default();
        let node = captured.add(pointer);
        captured.graph.nodes.push(node);
        captured.graph.tensors[node as usize].flags |= sys::GGML_TENSOR_FLAG_COMPUTE;
        isolated(&captured.graph, 0)
    }

    fn buffer(&mut self, tensor: &sys::ggml_tensor) -> Option<(BufferId, bool, Option<Layout>, usize)> {
        // A view that is not allocated has its owner's buffer.
        let mut buffer = tensor.buffer;
        if buffer.is_null() && !tensor.view_src.is_null() {
            // SAFETY: the owner lives as long as its views.
            buffer = unsafe { (*tensor.view_src).buffer };
        }
        if buffer.is_null() || tensor.data.is_null() {
            return None;
        }
        // SAFETY: the tensor's buffer lives during the computation; the name is a string literal.
        let (base, size, name) = unsafe {
            (
                sys::ggml_backend_buffer_get_base(buffer) as usize,
                sys::ggml_backend_buffer_get_size(buffer) as u64,
                CStr::from_ptr(sys::ggml_backend_buft_name(sys::ggml_backend_buffer_get_type(
                    buffer,
                ))),
            )
        };
        let weights = match name.to_str().unwrap() {
            "CPU_Mapped" => Some(Layout::Plain),
            "CPU_REPACK" => Some(Layout::Repacked),
            _ => None,
        };
        let next = BufferId(u32::try_from(self.buffers.len()).unwrap());
        let id = *self.buffers.entry(buffer as usize).or_insert(next);
        if weights.is_none() {
            self.shelf.memory.insert(id, size);
        }
        Some((id, weights.is_some(), weights, base))
    }

    fn add(&mut self, pointer: *const sys::ggml_tensor) -> u32 {
        if let Some(index) = self.indices.get(&(pointer as usize)) {
            return *index;
        }
        // SAFETY: tensors of the graph live during its computation.
        let tensor = unsafe { &*pointer };
        let view = (!tensor.view_src.is_null()).then(|| View {
            of: self.add(tensor.view_src),
            offset: tensor.view_offs as u64,
        });
        let mut sources: Vec<Option<u32>> = tensor
            .src
            .iter()
            .map(|source| {
                let source = source.cast_const();
                // A cast is its own second source.
                (!source.is_null() && source != pointer).then(|| self.add(source))
            })
            .collect();
        while sources.last() == Some(&None) {
            sources.pop();
        }
        let shape = tensor.ne.map(|n| u64::try_from(n).unwrap());
        let place = self.buffer(tensor).map(|(buffer, _, layout, base)| {
            let offset = (tensor.data as usize - base) as u64;
            let place = Place { buffer, offset };
            if let (Some(layout), None) = (layout, view) {
                // SAFETY: as above.
                let bytes = unsafe { sys::ggml_nbytes(pointer) } as u64;
                let element = tensor.type_;
                let placement = Placement::Weight {
                    element,
                    shape,
                    bytes,
                    layout,
                };
                self.shelf.weights.insert(place, placement);
            }
            place
        });
        let index = u32::try_from(self.graph.tensors.len()).unwrap();
        self.graph.tensors.push(Tensor {
            element: tensor.type_,
            shape,
            strides: tensor.nb.map(|n| n as u64),
            op: tensor.op,
            params: tensor.op_params,
            flags: tensor.flags.cast_unsigned(),
            sources,
            view,
            place,
        });
        self.indices.insert(pointer as usize, index);
        let integers = [sys::GGML_TYPE_I32, sys::GGML_TYPE_I64].contains(&tensor.type_);
        if integers && ops::only_looks(tensor.op) {
            self.keep(index, tensor);
        }
        index
    }

    fn keep(&mut self, index: u32, tensor: &sys::ggml_tensor) {
        if tensor.data.is_null() {
            return;
        }
        // SAFETY: all buffers are in host memory, and what is kept has been written.
        let bytes = unsafe { std::slice::from_raw_parts(tensor.data.cast::<u8>(), sys::ggml_nbytes(tensor)) };
        self.data.insert(index, bytes.to_vec());
    }

    fn visit(&mut self, pointer: *const sys::ggml_tensor) {
        let index = self.add(pointer);
        self.graph.nodes.push(index);
        // SAFETY: as above.
        let tensor = unsafe { &*pointer };
        if tensor.op == sys::GGML_OP_ARGSORT {
            let sorted = self.add(tensor.src[0]);
            // SAFETY: as above.
            self.keep(sorted, unsafe { &*tensor.src[0] });
        }
    }
}

unsafe extern "C" fn on_node(tensor: *mut sys::ggml_tensor, before: bool, data: *mut c_void) -> bool {
    if before {
        // SAFETY: `data` is the `Captured` of `decode`, which computes meanwhile.
        unsafe { &mut *data.cast::<Captured>() }.visit(tensor);
    }
    true
}

struct Context {
    model: *mut sys::llama_model,
    context: *mut sys::llama_context,
    captured: Box<Captured>,
    /// What is pooled must be an output.
    all_outputs: bool,
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: both are valid and used nowhere else.
        unsafe {
            sys::llama_free(self.context);
            sys::llama_model_free(self.model);
        }
    }
}

impl Context {
    fn new(path: &Path, run: Run) -> Option<Self> {
        crate::llama::initialize();
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut captured = Box::<Captured>::default();
        // SAFETY: the parameters' pointers are null or live as long as the context.
        unsafe {
            let mut params = sys::llama_model_default_params();
            params.use_extra_bufts = run.repack;
            params.n_gpu_layers = 0;
            let model = sys::llama_model_load_from_file(path.as_ptr(), params);
            assert!(!model.is_null());
            let mut params = sys::llama_context_default_params();
            params.n_ctx = 64 * run.sequences;
            // Divisible by all numbers of sequences: llama.cpp aborts over pooling otherwise.
            params.n_batch = 60;
            params.n_ubatch = 60;
            params.n_seq_max = run.sequences;
            params.n_threads = 1;
            params.n_threads_batch = 1;
            params.kv_unified = run.unified;
            params.flash_attn_type = if run.flash {
                sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
            } else {
                sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
            };
            params.type_k = run.cache;
            params.type_v = run.cache;
            params.embeddings = run.embeddings;
            params.cb_eval = Some(on_node);
            params.cb_eval_user_data = ptr::from_mut(captured.as_mut()).cast();
            let context = sys::llama_init_from_model(model, params);
            if context.is_null() {
                sys::llama_model_free(model);
                return None;
            }
            Some(Self {
                model,
                context,
                captured,
                all_outputs: run.embeddings,
            })
        }
    }

    /// Computes tokens, given by sequence and position; the last of each sequence has an output.
    fn decode(&mut self, tokens: &[(i32, i32)], outputs: bool) -> Captured {
        let count = i32::try_from(tokens.len()).unwrap();
        *self.captured = Captured::default();
        // SAFETY: the batch has room for `count` tokens of one sequence each.
        unsafe {
            let mut batch = sys::llama_batch_init(count, 0, 1);
            for (at, (sequence, position)) in tokens.iter().enumerate() {
                *batch.token.add(at) = 20 + position % 300;
                *batch.pos.add(at) = *position;
                *batch.n_seq_id.add(at) = 1;
                **batch.seq_id.add(at) = *sequence;
                let last = !tokens[at + 1..].iter().any(|(other, _)| other == sequence);
                *batch.logits.add(at) = i8::from(last && outputs || self.all_outputs);
            }
            batch.n_tokens = count;
            assert_eq!(sys::llama_decode(self.context, batch), 0);
            sys::llama_batch_free(batch);
        }
        std::mem::take(&mut *self.captured)
    }
}

/// The graphs of a prompt, of a token, and of a prompt without outputs; `None` where llama.cpp cannot
/// run the model so.
pub(super) fn capture(path: &Path, run: Run) -> Option<Vec<Captured>> {
    let mut context = Context::new(path, run)?;
    let sequences = i32::try_from(run.sequences).unwrap();
    let range = |from, to| -> Vec<(i32, i32)> {
        (0..sequences)
            .flat_map(|sequence| (from..to).map(move |position| (sequence, position)))
            .collect()
    };
    let mut all = vec![context.decode(&range(0, 9), true)];
    if !run.embeddings {
        all.push(context.decode(&range(9, 10), true));
        all.push(context.decode(&range(10, 14), false));
        all.push(context.decode(&range(14, 15), true));
    }
    Some(all)
}
