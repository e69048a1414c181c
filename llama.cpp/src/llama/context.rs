//! A context: KV cache and compute buffers for some sequences of one model.

use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::rows::{Rows, Target};
use super::threads::Threads;
use super::{Error, Model, Token, ffi, log};
use crate::server::options::{CacheType, FlashAttention};

/// A sequence of the KV cache, from 0 to below [`ContextParams::sequences`].
pub type SequenceId = sys::llama_seq_id;

/// ggml's number for how the KV cache stores numbers.
fn raw_type(cache_type: CacheType) -> sys::ggml_type {
    match cache_type {
        CacheType::F32 => sys::GGML_TYPE_F32,
        CacheType::F16 => sys::GGML_TYPE_F16,
        CacheType::Bf16 => sys::GGML_TYPE_BF16,
        CacheType::Q8_0 => sys::GGML_TYPE_Q8_0,
        CacheType::Q5_1 => sys::GGML_TYPE_Q5_1,
        CacheType::Q5_0 => sys::GGML_TYPE_Q5_0,
        CacheType::Q4_1 => sys::GGML_TYPE_Q4_1,
        CacheType::Q4_0 => sys::GGML_TYPE_Q4_0,
        CacheType::Iq4Nl => sys::GGML_TYPE_IQ4_NL,
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// As the model's file says.
    OfModel,
    /// Their mean.
    Mean,
}

/// How a context is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextParams {
    /// Tokens that all sequences share.
    pub context: u32,
    /// Most tokens of one [`Batch`].
    pub batch: u32,
    /// Most tokens that are computed at once.
    pub micro_batch: u32,
    /// Sequences.
    pub sequences: u32,
    /// Most rows of logits of one [`Batch`]; room for them is always kept.
    pub outputs: u32,
    /// Tokens by which a sequence with a recurrent state can be cut back: so many states are kept of each.
    /// Without effect where llama.cpp keeps none, see [`Context::rollback`].
    pub rollback: u32,
    /// Threads for one token a sequence, and for many.
    pub threads: u32,
    /// Storage of keys.
    pub cache_type_k: CacheType,
    /// Storage of values.
    pub cache_type_v: CacheType,
    /// Flash attention.
    pub flash_attention: FlashAttention,
    /// Make embeddings in place of logits.
    pub embeddings: Option<Pooling>,
}

/// What a context computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graph {
    /// The model.
    Model,
    /// Only its layers that guess the tokens after the next one, from hidden states of the model's.
    Heads,
    /// A model that does the same for another one (EAGLE-3), and first makes a hidden state of its own of several.
    Eagle,
}

impl ContextParams {
    pub(super) fn raw(&self, graph: Graph) -> sys::llama_context_params {
        let threads = i32::try_from(self.threads).unwrap_or(i32::MAX);
        // SAFETY: returns a plain struct.
        let mut raw = unsafe { sys::llama_context_default_params() };
        raw.ctx_type = match graph {
            Graph::Model | Graph::Eagle => sys::LLAMA_CONTEXT_TYPE_DEFAULT,
            Graph::Heads => sys::LLAMA_CONTEXT_TYPE_MTP,
        };
        raw.n_ctx = self.context;
        raw.n_batch = self.batch;
        raw.n_ubatch = self.micro_batch;
        raw.n_seq_max = self.sequences;
        raw.n_outputs_max = self.outputs;
        raw.n_rs_seq = self.rollback;
        raw.n_threads = threads;
        raw.n_threads_batch = threads;
        raw.type_k = raw_type(self.cache_type_k);
        raw.type_v = raw_type(self.cache_type_v);
        raw.flash_attn_type = match self.flash_attention {
            FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        raw.embeddings = self.embeddings.is_some();
        raw.pooling_type = match self.embeddings {
            Some(Pooling::Mean) => sys::LLAMA_POOLING_TYPE_MEAN,
            _ => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
        };
        raw.kv_unified = true;
        // llama.cpp's default, and needed: layers with a sliding window keep what was, so that sequences
        // can be cut back and prefixes shared.
        raw.swa_full = true;
        raw.no_perf = true;
        raw
    }
}

/// Tokens to compute in one step.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<Token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<SequenceId>,
    outputs: Vec<i8>,
    /// Beside the tokens, in a batch for [`Graph::Heads`] and [`Graph::Eagle`]; else none.
    hidden: Vec<f32>,
}

impl Batch {
    /// Adds `token` at `position` of `sequence`; with `output` its row of logits is computed.
    pub fn push(&mut self, token: Token, position: u32, sequence: SequenceId, output: bool) {
        self.tokens.push(token);
        self.positions.push(i32::try_from(position).unwrap_or(i32::MAX));
        self.sequences.push(sequence);
        self.outputs.push(output.into());
    }

    /// The same, for a context of [`Graph::Heads`] or [`Graph::Eagle`]: `hidden` is the state that the model had before
    /// `token`.
    pub fn push_after(
        &mut self,
        hidden: &[f32],
        token: Token,
        position: u32,
        sequence: SequenceId,
        output: bool,
    ) {
        self.push(token, position, sequence, output);
        self.hidden.extend_from_slice(hidden);
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.hidden.clear();
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Rows of logits that it asks for.
    pub fn output_count(&self) -> usize {
        self.outputs.iter().filter(|output| **output != 0).count()
    }

    /// Calls `body` with llama.cpp's form of the batch, whose pointers live that long.
    fn with_raw<T>(&mut self, body: impl FnOnce(sys::llama_batch) -> T) -> T {
        let mut counts = vec![1_i32; self.len()];
        let mut sequences: Vec<*mut SequenceId> = self.sequences.iter_mut().map(std::ptr::from_mut).collect();
        body(sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: if self.hidden.is_empty() {
                std::ptr::null_mut()
            } else {
                self.hidden.as_mut_ptr()
            },
            pos: self.positions.as_mut_ptr(),
            n_seq_id: counts.as_mut_ptr(),
            seq_id: sequences.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        })
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// It is computed, or queued where the device is one that queues.
    Done,
    /// The KV cache has no room for it; nothing was changed.
    NoRoom,
}

/// A context of a model. One thread uses it at a time.
#[derive(Debug)]
pub struct Context {
    handle: NonNull<sys::llama_context>,
    params: ContextParams,
    graph: Graph,
    hidden: Hidden,
    /// Numbers that [`Self::encode`] takes for a token: none but of [`Graph::Eagle`].
    target_states_width: usize,
    /// Batch indices with logits in the last step.
    rows: Vec<bool>,
    /// What counts in place of llama.cpp's own logits, where devices answer later.
    adopted: Option<Rows>,
    /// A batch index of the last step that llama.cpp has a row for.
    anchor: Option<i32>,
    model: Arc<Model>,
    /// Outlives the context, which uses it: fields are dropped after `drop`.
    threads: Arc<Threads>,
}

/// What becomes of the hidden states of a batch's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hidden {
    Dropped,
    /// That after the last layer.
    Kept,
    /// Those before these layers.
    Before(Vec<u32>),
}

fn state_error(error: Option<String>, otherwise: &str) -> Error {
    Error::State(cause(error, otherwise))
}

fn decode_error(error: Option<String>, otherwise: &str) -> Error {
    Error::Decode(cause(error, otherwise))
}

/// What was said on a failure, or else logged.
fn cause(error: Option<String>, otherwise: &str) -> String {
    error
        .or_else(log::take_last_error)
        .unwrap_or_else(|| otherwise.to_owned())
}

// SAFETY: a context has no ties to the thread that made it; `&mut` keeps its use to one at a time.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `mesh_context_new` and freed only here, before the model.
        unsafe { sys::llama_free(self.handle.as_ptr()) };
    }
}

impl Context {
    /// A context with an empty cache.
    ///
    /// # Errors
    /// [`Error::Context`] with llama.cpp's last words on the cause.
    pub fn new(model: Arc<Model>, params: ContextParams) -> Result<Self, Error> {
        let threads = Arc::new(Threads::new(params.threads)?);
        Self::open(model, params, Graph::Model, threads, None)
    }

    /// A context of the same model's heads, layers that guess the tokens after the next one, with an empty cache.
    /// It computes on the same threads, so that no two threads may use both at once.
    ///
    /// # Safety
    /// The model has heads, they are loaded, and llama.cpp has a graph for them: else it aborts the process.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub unsafe fn of_heads(&self, params: ContextParams) -> Result<Self, Error> {
        let mut heads = Self::open(
            self.model.clone(),
            params,
            Graph::Heads,
            self.threads.clone(),
            None,
        )?;
        heads.keep_hidden();
        Ok(heads)
    }

    /// A context of a model that guesses what this one's says (EAGLE-3), with an empty cache, on the same threads, so
    /// that no two threads may use both at once.
    ///
    /// # Safety
    /// `eagle` is such a model and made for this one: what it takes from it is there, and of the length that it
    /// expects. Nothing is computed with the new context once this one is dropped.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub unsafe fn of_eagle(&self, eagle: Arc<Model>, params: ContextParams) -> Result<Self, Error> {
        let mut context = Self::open(eagle, params, Graph::Eagle, self.threads.clone(), Some(self))?;
        context.keep_hidden();
        Ok(context)
    }

    pub(super) fn open(
        model: Arc<Model>,
        params: ContextParams,
        graph: Graph,
        threads: Arc<Threads>,
        other: Option<&Self>,
    ) -> Result<Self, Error> {
        log::take_last_error();
        let mut raw = params.raw(graph);
        raw.ctx_other = other.map_or(std::ptr::null_mut(), Self::as_ptr);
        // SAFETY: the model outlives the context, which keeps an `Arc` of it.
        let (handle, error) =
            ffi::with_error(|error| unsafe { ffi::mesh_context_new(model.as_ptr(), raw, error) });
        let handle = NonNull::new(handle).ok_or_else(|| Error::Context(cause(error, "it gave no reason")))?;
        // SAFETY: the pool lives as long as the context.
        unsafe { sys::llama_attach_threadpool(handle.as_ptr(), threads.as_ptr(), threads.as_ptr()) };
        Ok(Self {
            handle,
            params,
            graph,
            hidden: Hidden::Dropped,
            target_states_width: model.target_states_width(),
            rows: Vec::new(),
            adopted: None,
            anchor: None,
            model,
            threads,
        })
    }

    /// From now on keeps the hidden state after each token of a batch, which a context of [`Self::of_heads`] does
    /// always.
    pub fn keep_hidden(&mut self) {
        // SAFETY: the handle is live, and `&mut` keeps others away.
        unsafe { ffi::mesh_keep_hidden(self.handle.as_ptr()) };
        self.hidden = Hidden::Kept;
    }

    /// From now on keeps the hidden states before these layers, in place of the last one.
    ///
    /// # Safety
    /// The model has these layers, and llama.cpp's graph of it says what they are given: else it aborts the process.
    pub unsafe fn keep_hidden_before(&mut self, layers: &[u32]) {
        for layer in layers {
            // SAFETY: the handle is live, and the layer is there, as the caller says.
            unsafe { ffi::mesh_keep_layer_input(self.handle.as_ptr(), *layer) };
        }
        self.hidden = Hidden::Before(layers.to_vec());
        // Of what was computed before there are none.
        self.rows.clear();
    }

    /// Adds the hidden states that are kept of the token at `index` of the last batch, one after the other. Waits for
    /// the step. Whether there are any.
    pub fn add_hidden(&mut self, index: usize, states: &mut Vec<f32>) -> bool {
        if self.hidden == Hidden::Kept {
            let state = self.hidden(index);
            states.extend_from_slice(state.unwrap_or_default());
            return state.is_some();
        }
        let Hidden::Before(layers) = &self.hidden else {
            return false;
        };
        if index >= self.rows.len() {
            return false;
        }
        let (context, width) = (self.handle.as_ptr(), self.model.embedding_width() as usize);
        let length = states.len();
        for layer in layers {
            // SAFETY: what this layer is given is kept, and the last batch was computed.
            let (all, _) = ffi::with_error(|error| unsafe { ffi::mesh_layer_inputs(context, *layer, error) });
            let Some(all) = NonNull::new(all.cast_mut()) else {
                states.truncate(length);
                return false;
            };
            // SAFETY: each token of the batch has so many numbers there, which live until the next step.
            let state = unsafe { std::slice::from_raw_parts(all.as_ptr().add(index * width), width) };
            states.extend_from_slice(state);
        }
        true
    }

    /// Numbers of another model's hidden states that [`Self::encode`] takes for a token.
    pub fn target_states_width(&self) -> usize {
        self.target_states_width
    }

    /// Makes hidden states for a context of [`Graph::Eagle`] of what another one keeps before its layers, one row a
    /// token; they are there as [`Self::hidden`] until the next step.
    ///
    /// # Errors
    /// [`Error::Rejected`] for more of them than a step has, or others; [`Error::Decode`] where llama.cpp fails.
    pub fn encode(&mut self, states: &mut [f32]) -> Result<(), Error> {
        let width = self.target_states_width;
        let tokens = states.len().checked_div(width).unwrap_or(0);
        let fits = tokens > 0 && tokens * width == states.len();
        if !fits || tokens > self.params.micro_batch as usize {
            return Err(Error::Rejected(format!(
                "{} numbers are no hidden states of {width} each, or too many",
                states.len()
            )));
        }
        self.rows.clear();
        log::take_last_error();
        // They mean nothing to an encoder, but llama.cpp wants them to follow those that the sequence has.
        // SAFETY: the memory is live, and each context has the first sequence.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory(), 0) };
        let mut positions: Vec<sys::llama_pos> = (last + 1..).take(tokens).collect();
        let mut outputs = vec![1; tokens];
        let mut counts = vec![1_i32; tokens];
        let mut sequence: SequenceId = 0;
        let mut sequences = vec![&raw mut sequence; tokens];
        let context = self.handle.as_ptr();
        let batch = sys::llama_batch {
            n_tokens: tokens as i32,
            token: std::ptr::null_mut(),
            embd: states.as_mut_ptr(),
            pos: positions.as_mut_ptr(),
            n_seq_id: counts.as_mut_ptr(),
            seq_id: sequences.as_mut_ptr(),
            logits: outputs.as_mut_ptr(),
        };
        // SAFETY: all that the batch points to outlives the call, and a token has as many numbers as the model takes.
        let (status, error) = ffi::with_error(|error| unsafe { ffi::mesh_encode(context, batch, error) });
        if status != 0 {
            return Err(decode_error(error, &format!("llama_encode returned {status}")));
        }
        // No logits, but a state of each.
        self.rows.resize(tokens, false);
        Ok(())
    }

    /// The hidden state after the token at `index` of the last batch. Waits for the step. `None` if it was not
    /// kept.
    pub fn hidden(&mut self, index: usize) -> Option<&[f32]> {
        let kept = self.hidden == Hidden::Kept && index < self.rows.len();
        let index = i32::try_from(index).ok().filter(|_| kept)?;
        // SAFETY: the last batch has a token there whose hidden state is kept.
        let (row, _) =
            ffi::with_error(|error| unsafe { ffi::mesh_hidden_state(self.handle.as_ptr(), index, error) });
        let row = NonNull::new(row.cast_mut())?;
        // SAFETY: a state has so many numbers and lives until the next step, which `&mut self` guards.
        Some(unsafe { std::slice::from_raw_parts(row.as_ptr(), self.model.embedding_width() as usize) })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens that its sequences share: what was asked for, rounded up by llama.cpp.
    pub fn size(&self) -> u32 {
        // SAFETY: reads a field.
        unsafe { sys::llama_n_ctx(self.handle.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_context {
        self.handle.as_ptr()
    }

    /// Queues a batch on devices that answer later. At least one row of it is computed, so that
    /// [`Self::adopt`]ed rows have a place in llama.cpp's memory to be sampled from.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_queued(&mut self, batch: &mut Batch) -> Result<Decoded, Error> {
        let added = batch.output_count() == 0;
        if let Some(last) = batch.outputs.last_mut().filter(|_| added) {
            *last = 1;
        }
        let decoded = self.decode(batch);
        if let Some(last) = batch.outputs.last_mut().filter(|_| added) {
            *last = 0;
        }
        if let Ok(Decoded::Done) = decoded {
            self.anchor = self.rows.iter().position(|row| *row).map(|index| index as i32);
        }
        decoded
    }

    /// Finds out which row of the last step's logits belongs to which token of its batch. llama.cpp
    /// knows, whatever order it computed them in: each row is marked with its number, and asked for by
    /// token. `targets` are where it expects them, in the order in which they are computed.
    ///
    /// # Safety
    /// The targets are what llama.cpp gave its devices in the last step of this context as places for
    /// logits, and nobody writes there.
    pub unsafe fn expect_rows(&mut self, targets: &[Target]) -> Rows {
        let width = self.model.vocab_size() as usize;
        let row_bytes = width * size_of::<f32>();
        let mut count = 0_u32;
        for target in targets {
            for row in 0..target.bytes / row_bytes {
                // SAFETY: the caller says that so many bytes are there.
                unsafe {
                    target
                        .address
                        .add(row * row_bytes)
                        .cast::<u32>()
                        .write_unaligned(count)
                };
                count += 1;
            }
        }
        let context = self.handle.as_ptr();
        let row_of = |index: usize| {
            // SAFETY: the last step asked for this row, so llama.cpp finds it.
            let row = unsafe { sys::llama_get_logits_ith(context, i32::try_from(index).ok()?) };
            let row = NonNull::new(row)?;
            // SAFETY: the row was marked above.
            let number = unsafe { row.as_ptr().cast::<u32>().read_unaligned() };
            (number < count).then_some(number as usize)
        };
        let rows = std::mem::take(&mut self.rows);
        let index = rows.iter().enumerate();
        let index = index
            .map(|(index, wanted)| wanted.then(|| row_of(index)).flatten())
            .collect();
        self.rows = rows;
        Rows::expected(index, width)
    }

    /// From now on [`Self::logits`] are these, of a step that was queued.
    pub fn adopt(&mut self, rows: Rows) {
        self.adopted = Some(rows);
    }

    /// Where llama.cpp's samplers find the row of the token at `index`. `None` if there is none.
    pub(super) fn row_for_sampler(&mut self, index: usize) -> Option<i32> {
        if let Some(adopted) = &self.adopted {
            let from = adopted.get(index)?;
            let anchor = self.anchor?;
            // SAFETY: the last step that was queued asked for this row.
            let into = NonNull::new(unsafe { sys::llama_get_logits_ith(self.handle.as_ptr(), anchor) })?;
            // SAFETY: a row of llama.cpp's is as long as one of ours, and nobody else writes there: what
            // its devices compute goes elsewhere.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), from.len()) };
            return Some(anchor);
        }
        self.logits(index)?;
        i32::try_from(index).ok()
    }

    /// Computes a batch. Results of the step before are gone.
    ///
    /// # Errors
    /// [`Error::Rejected`] for a batch that the context was not made for; [`Error::Decode`] where
    /// llama.cpp fails: the sequences of the batch are then in an unknown state and must be cleared.
    pub fn decode(&mut self, batch: &mut Batch) -> Result<Decoded, Error> {
        self.check(batch)?;
        self.rows.clear();
        log::take_last_error();
        let context = self.handle.as_ptr();
        // SAFETY: the batch was checked against the context's limits; its pointers outlive the call.
        let (status, error) =
            batch.with_raw(|raw| ffi::with_error(|error| unsafe { ffi::mesh_decode(context, raw, error) }));
        match status {
            0 => {
                self.rows.extend(batch.outputs.iter().map(|output| *output != 0));
                Ok(Decoded::Done)
            }
            1 => Ok(Decoded::NoRoom),
            _ => Err(decode_error(error, &format!("llama_decode returned {status}"))),
        }
    }

    /// Waits until the last step is computed.
    ///
    /// # Errors
    /// [`Error::Decode`] where a device failed.
    pub fn synchronize(&mut self) -> Result<(), Error> {
        // SAFETY: the handle is live.
        let (status, error) =
            ffi::with_error(|error| unsafe { ffi::mesh_synchronize(self.handle.as_ptr(), error) });
        if status == 0 {
            Ok(())
        } else {
            Err(Error::Decode(error.unwrap_or_default()))
        }
    }

    /// What would make llama.cpp abort the process.
    fn check(&self, batch: &Batch) -> Result<(), Error> {
        let vocab = i64::from(self.model.vocab_size());
        let sequences = i64::from(self.params.sequences);
        let hidden = match self.graph {
            Graph::Model => 0,
            Graph::Heads | Graph::Eagle => batch.len() * self.model.embedding_width() as usize,
        };
        let fits = batch.hidden.len() == hidden
            && batch.len() <= self.params.batch as usize
            && (self.params.embeddings.is_some() || batch.output_count() <= self.params.outputs as usize)
            && batch
                .sequences
                .iter()
                .all(|sequence| (0..sequences).contains(&i64::from(*sequence)))
            && batch
                .tokens
                .iter()
                .all(|token| (0..vocab).contains(&i64::from(*token)));
        if fits && !batch.is_empty() {
            return Ok(());
        }
        Err(Error::Rejected(
            "the batch is empty, too large for the context or not made for it, or names a token or sequence that is \
             not there"
                .into(),
        ))
    }

    /// Logits of the token at `index` of the last batch, one a token of the vocabulary. Waits for
    /// the step. `None` if none were asked for there.
    pub fn logits(&mut self, index: usize) -> Option<&[f32]> {
        if self.adopted.is_some() {
            return self.adopted.as_ref()?.get(index);
        }
        if !self.rows.get(index).copied().unwrap_or(false) || self.params.embeddings.is_some() {
            return None;
        }
        // SAFETY: the last batch asked for this row.
        let row = unsafe { sys::llama_get_logits_ith(self.handle.as_ptr(), i32::try_from(index).ok()?) };
        let row = NonNull::new(row)?;
        // SAFETY: a row has a number for each token and lives until the next step, which `&mut self` guards.
        Some(unsafe { std::slice::from_raw_parts(row.as_ptr(), self.model.vocab_size() as usize) })
    }

    /// The vector that pooling made of `sequence` in the last step, or how it ranks it.
    pub fn pooled_embedding(&mut self, sequence: SequenceId) -> Option<&[f32]> {
        // SAFETY: looks the sequence up; null if it was not in the step.
        let row = unsafe { sys::llama_get_embeddings_seq(self.handle.as_ptr(), sequence) };
        let row = NonNull::new(row)?;
        let width = match self.params.embeddings? {
            Pooling::OfModel => self.model.pooled_width(),
            Pooling::Mean => self.model.embedding_width() as usize,
        };
        // SAFETY: pooling made so many numbers, and they live until the next step.
        Some(unsafe { std::slice::from_raw_parts(row.as_ptr(), width) })
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: reads a field; null for a model without memory, which all functions below accept.
        unsafe { sys::llama_get_memory(self.handle.as_ptr()) }
    }

    fn knows(&self, sequence: SequenceId) -> bool {
        u32::try_from(sequence).is_ok_and(|sequence| sequence < self.params.sequences)
    }

    /// Forgets the tokens of `sequence` from position `from` on. `false` where the model's state
    /// cannot be cut there; nothing is changed then.
    pub fn truncate(&mut self, sequence: SequenceId, from: u32) -> bool {
        let memory = self.memory();
        if memory.is_null() || !self.knows(sequence) {
            return from == 0;
        }
        // SAFETY: the memory is live and the sequence below its number.
        unsafe { sys::llama_memory_seq_rm(memory, sequence, i32::try_from(from).unwrap_or(i32::MAX), -1) }
    }

    /// Lets `to` share the first `length` tokens of `from`. `to` must be empty.
    pub fn share(&mut self, from: SequenceId, to: SequenceId, length: u32) {
        let memory = self.memory();
        if memory.is_null() || !self.knows(from) || !self.knows(to) || from == to {
            return;
        }
        // SAFETY: the memory is live and both sequences below its number.
        unsafe { sys::llama_memory_seq_cp(memory, from, to, 0, i32::try_from(length).unwrap_or(i32::MAX)) };
    }

    /// What the cache has of `sequence`, as bytes for [`Self::restore`], at most so many.
    ///
    /// # Errors
    /// [`Error::State`] where llama.cpp cannot write it, or it is more.
    pub fn save(&mut self, sequence: SequenceId, most_bytes: u64) -> Result<Vec<u8>, Error> {
        if !self.knows(sequence) {
            return Err(Error::State("there is no such sequence".into()));
        }
        let context = self.handle.as_ptr();
        // SAFETY: the handle is live and the sequence below its number.
        let (size, error) =
            ffi::with_error(|error| unsafe { ffi::mesh_state_size(context, sequence, error) });
        if size as u64 > most_bytes {
            return Err(Error::State(format!(
                "its {size} bytes are more than {most_bytes}"
            )));
        }
        let mut bytes = vec![0; size];
        // SAFETY: as above; llama.cpp writes at most `size` bytes.
        let (written, late) = ffi::with_error(|error| unsafe {
            ffi::mesh_state_get(context, sequence, bytes.as_mut_ptr(), size, error)
        });
        if size == 0 || written != size {
            return Err(state_error(error.or(late), "it could not be written"));
        }
        Ok(bytes)
    }

    /// Fills `sequence`, which must be empty, from what [`Self::save`] gave for the same model and
    /// kind of cache.
    ///
    /// # Errors
    /// [`Error::State`] where the bytes do not fit this cache, or it has no room; the sequence is
    /// empty then.
    pub fn restore(&mut self, sequence: SequenceId, bytes: &[u8]) -> Result<(), Error> {
        if !self.knows(sequence) {
            return Err(Error::State("there is no such sequence".into()));
        }
        log::take_last_error();
        // SAFETY: the handle is live, the sequence below its number, and the bytes outlive the call.
        let (read, error) = ffi::with_error(|error| unsafe {
            ffi::mesh_state_set(self.handle.as_ptr(), sequence, bytes.as_ptr(), bytes.len(), error)
        });
        if read == bytes.len() {
            return Ok(());
        }
        self.truncate(sequence, 0);
        Err(state_error(error, "it does not fit this cache"))
    }

    /// The first position of `sequence` that the cache still has; layers with a sliding window
    /// forget early ones. `None` if it has none.
    pub fn first_position(&self, sequence: SequenceId) -> Option<u32> {
        let memory = self.memory();
        if memory.is_null() || !self.knows(sequence) {
            return None;
        }
        // SAFETY: the memory is live and the sequence below its number.
        u32::try_from(unsafe { sys::llama_memory_seq_pos_min(memory, sequence) }).ok()
    }
}
