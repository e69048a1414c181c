//! As much of llama.cpp as measuring needs, with its lifetimes.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

use anyhow::{Context as _, bail, ensure};
use llama_cpp_sys_2 as sys;

// From ggml-rpc.h, which the crate's bindings leave out.
unsafe extern "C" {
    fn ggml_backend_rpc_add_server(endpoint: *const c_char) -> sys::ggml_backend_reg_t;

    /// Serves `devices` until listening fails. `cache` may be null.
    pub fn ggml_backend_rpc_start_server(
        endpoint: *const c_char,
        cache: *const c_char,
        threads: usize,
        devices: usize,
        device: *mut sys::ggml_backend_dev_t,
    );
}

/// Prepares llama.cpp; its log is left out, but for errors.
pub fn initialize() {
    unsafe extern "C" fn log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
        if level == sys::GGML_LOG_LEVEL_ERROR {
            // SAFETY: llama.cpp passes a text that ends with a zero byte.
            eprint!("{}", unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy());
        }
    }
    // SAFETY: a function without state, called from any thread.
    unsafe {
        sys::llama_log_set(Some(log), ptr::null_mut());
        sys::llama_backend_init();
    }
}

/// A model's file and who computes it.
#[derive(Debug)]
pub struct Placement<'a> {
    pub file: &'a Path,
    /// Addresses of servers.
    pub servers: &'a [String],
    pub gpu_layers: i32,
    pub tensor_split: &'a [f32],
}

/// A loaded model.
#[derive(Debug)]
pub struct Model(NonNull<sys::llama_model>);

impl Model {
    /// Connects to the servers and loads.
    ///
    /// # Errors
    /// Where a server cannot be reached, or the file is no model.
    pub fn load(placement: &Placement<'_>) -> anyhow::Result<Self> {
        let file = CString::new(placement.file.as_os_str().as_encoded_bytes())?;
        let mut devices = Vec::new();
        for server in placement.servers {
            devices.extend(devices_of(server)?);
        }
        devices.push(ptr::null_mut());
        // SAFETY: no arguments, a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        // SAFETY: no arguments.
        let mut split = vec![0.0; unsafe { sys::llama_max_devices() }];
        ensure!(placement.tensor_split.len() <= split.len(), "too many shares");
        split[..placement.tensor_split.len()].copy_from_slice(placement.tensor_split);
        params.devices = devices.as_mut_ptr();
        params.n_gpu_layers = placement.gpu_layers;
        if !placement.tensor_split.is_empty() {
            params.tensor_split = split.as_ptr();
        }
        // SAFETY: file, devices (ended by null) and shares (as many as llama.cpp reads) live through the call.
        let model = unsafe { sys::llama_model_load_from_file(file.as_ptr(), params) };
        NonNull::new(model).map(Self).context("the model was not loaded")
    }

    fn vocabulary(&self) -> usize {
        // SAFETY: the model lives.
        let count = unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(self.0.as_ptr())) };
        count as usize
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: it lives, and contexts hold their model.
        unsafe { sys::llama_model_free(self.0.as_ptr()) }
    }
}

/// A server's devices.
fn devices_of(server: &str) -> anyhow::Result<Vec<sys::ggml_backend_dev_t>> {
    let endpoint = CString::new(server)?;
    // SAFETY: the endpoint lives through the call.
    let registry = unsafe { ggml_backend_rpc_add_server(endpoint.as_ptr()) };
    if registry.is_null() {
        bail!("the server {server} cannot be reached");
    }
    // SAFETY: a registry lives as long as the process; the numbers are below its count.
    Ok(unsafe {
        sys::ggml_backend_register(registry);
        (0..sys::ggml_backend_reg_dev_count(registry))
            .map(|number| sys::ggml_backend_reg_dev_get(registry, number))
            .collect()
    })
}

/// A context and the model that it holds. Fields are dropped in this order.
#[derive(Debug)]
pub struct Context {
    raw: Raw,
    model: Model,
}

#[derive(Debug)]
struct Raw(NonNull<sys::llama_context>);

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: it lives, and nothing else has it.
        unsafe { sys::llama_free(self.0.as_ptr()) }
    }
}

/// A token of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub token: i32,
    pub position: i32,
    pub stream: i32,
    /// Whether what follows it will be asked for.
    pub output: bool,
}

impl Context {
    /// Makes one as llama.cpp's own server does by default, with one cache for all streams.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn new(model: Model, context: u32, streams: u32, threads: i32) -> anyhow::Result<Self> {
        // SAFETY: no arguments, a plain struct.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = context;
        params.n_seq_max = streams;
        params.n_threads = threads;
        params.n_threads_batch = threads;
        params.kv_unified = true;
        // SAFETY: the model lives as long as the context: `Context` holds both.
        let raw = unsafe { sys::llama_init_from_model(model.0.as_ptr(), params) };
        let raw = NonNull::new(raw).context("no context was made")?;
        Ok(Self { raw: Raw(raw), model })
    }

    /// Tokens of a batch, at most.
    pub fn batch_limit(&self) -> usize {
        // SAFETY: the context lives.
        unsafe { sys::llama_n_batch(self.raw.0.as_ptr()) as usize }
    }

    /// Tokens that there are.
    pub fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    /// Forgets all streams.
    pub fn clear(&mut self) {
        // SAFETY: the context lives.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.raw.0.as_ptr()), false) }
    }

    /// Computes these rows, not more than a batch holds.
    ///
    /// # Errors
    /// Where llama.cpp fails, or the cache is full.
    pub fn decode(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        ensure!(rows.len() <= self.batch_limit(), "too many rows");
        let mut tokens: Vec<i32> = rows.iter().map(|row| row.token).collect();
        let mut positions: Vec<i32> = rows.iter().map(|row| row.position).collect();
        let mut counts = vec![1; rows.len()];
        let mut streams: Vec<i32> = rows.iter().map(|row| row.stream).collect();
        let mut lists: Vec<*mut i32> = streams.iter_mut().map(ptr::from_mut).collect();
        let mut outputs: Vec<i8> = rows.iter().map(|row| row.output.into()).collect();
        // SAFETY: all zeros (null pointers) are a valid batch; what this version adds stays so.
        let mut batch: sys::llama_batch = unsafe { std::mem::zeroed() };
        batch.n_tokens = i32::try_from(rows.len())?;
        batch.token = tokens.as_mut_ptr();
        batch.pos = positions.as_mut_ptr();
        batch.n_seq_id = counts.as_mut_ptr();
        batch.seq_id = lists.as_mut_ptr();
        batch.logits = outputs.as_mut_ptr();
        // SAFETY: the arrays have `n_tokens` entries each and live through the call, which keeps none.
        let code = unsafe { sys::llama_decode(self.raw.0.as_ptr(), batch) };
        ensure!(code == 0, "llama_decode: {code}");
        Ok(())
    }

    /// Waits until everything is computed.
    pub fn synchronize(&mut self) {
        // SAFETY: the context lives.
        unsafe { sys::llama_synchronize(self.raw.0.as_ptr()) }
    }

    /// The likeliest token after this row of the last batch.
    ///
    /// # Errors
    /// Where it was no output.
    pub fn likeliest(&mut self, row: usize) -> anyhow::Result<i32> {
        let row = i32::try_from(row)?;
        // SAFETY: the context lives.
        let logits = unsafe { sys::llama_get_logits_ith(self.raw.0.as_ptr(), row) };
        ensure!(!logits.is_null(), "row {row} has no logits");
        // SAFETY: llama.cpp keeps one value a token of the vocabulary there until the next batch.
        let logits = unsafe { std::slice::from_raw_parts(logits, self.vocabulary()) };
        let mut best = (0, f32::NEG_INFINITY);
        for (token, logit) in logits.iter().enumerate() {
            if *logit > best.1 {
                best = (token, *logit);
            }
        }
        Ok(i32::try_from(best.0)?)
    }
}
