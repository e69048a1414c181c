//! A loaded model and its vocabulary.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::{self, NonNull};

use llama_cpp_sys_2 as sys;

use super::unread::{self, Unread};
use super::{Device, Error, ffi, log};

/// A token of a model's vocabulary.
pub type Token = sys::llama_token;

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct ModelParams {
    /// Devices to use beside the CPU; `None` is all GPUs that there are.
    pub devices: Option<Vec<Device>>,
    /// Layers on those devices; `None` is all.
    pub gpu_layers: Option<u32>,
    /// Share of the layers for each device; empty is by free memory.
    pub tensor_split: Vec<f32>,
    /// What becomes of layers that guess the tokens after the next one.
    pub heads: HeadLayers,
}

/// What becomes of a model's layers that guess the tokens after the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeadLayers {
    /// They stay in the file.
    #[default]
    LeftOut,
    /// They are loaded.
    Loaded,
}

impl ModelParams {
    /// Calls `body` with llama.cpp's form of these parameters, whose pointers live that long.
    pub(super) fn with_raw<T>(&self, body: impl FnOnce(&mut sys::llama_model_params) -> T) -> T {
        // SAFETY: returns a plain struct.
        let mut raw = unsafe { sys::llama_model_default_params() };
        let mut devices: Vec<sys::ggml_backend_dev_t> = self
            .devices
            .iter()
            .flatten()
            .map(|device| device.handle.0)
            .collect();
        devices.push(ptr::null_mut());
        if self.devices.is_some() {
            raw.devices = devices.as_mut_ptr();
        }
        raw.n_gpu_layers = self
            .gpu_layers
            .map_or(-1, |layers| i32::try_from(layers).unwrap_or(i32::MAX));
        // SAFETY: reads a constant.
        let mut split = vec![0.0; unsafe { sys::llama_max_devices() }];
        if !self.tensor_split.is_empty() {
            let count = self.tensor_split.len().min(split.len());
            split[..count].copy_from_slice(&self.tensor_split[..count]);
            raw.tensor_split = split.as_ptr();
        }
        raw.load_mtp = self.heads == HeadLayers::Loaded;
        body(&mut raw)
    }
}

/// Tokens that mark the parts of a text with a gap to fill in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Infill {
    /// Comes before the text before the gap.
    pub prefix: Token,
    /// Comes before the text after the gap.
    pub suffix: Token,
    /// Comes where the model begins to fill.
    pub middle: Token,
}

/// A loaded model: weights and vocabulary. It does not change, so threads share it.
#[derive(Debug)]
pub struct Model {
    handle: NonNull<sys::llama_model>,
    vocab: NonNull<sys::llama_vocab>,
    /// Dropped after `drop`: what owns them must outlive the model.
    _devices: Vec<Device>,
}

// SAFETY: a loaded model is read-only; llama.cpp's own server reads it from several threads.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts hold an `Arc` of the model, so none is left.
        unsafe { sys::llama_model_free(self.handle.as_ptr()) };
    }
}

/// What is read of a model's file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    All,
    /// All but the weights, for which no memory is taken.
    Outline,
}

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32),
}

unsafe extern "C" fn on_progress(fraction: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the `Progress` that `load` keeps alive during the call.
    let progress = unsafe { &mut *data.cast::<Progress<'_>>() };
    catch_unwind(AssertUnwindSafe(|| (progress.report)(fraction))).is_ok()
}

impl Model {
    /// Loads the weights of the GGUF file at `path` (a split model by its first part) and reports
    /// progress from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Load`] with llama.cpp's last words on the cause.
    pub fn load(path: &Path, params: &ModelParams, report: impl FnMut(f32)) -> Result<Self, Error> {
        Self::open(path, params, Parts::All, report)
    }

    /// The model without its weights, placed as `params` say. Contexts of it can be made, but not used.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(super) fn load_outline(path: &Path, params: &ModelParams) -> Result<Self, Error> {
        Self::open(path, params, Parts::Outline, |_| {})
    }

    fn open(
        path: &Path,
        params: &ModelParams,
        parts: Parts,
        mut report: impl FnMut(f32),
    ) -> Result<Self, Error> {
        super::initialize();
        let _alone = unread::alone();
        let failed = |cause: String| Error::Load {
            path: path.display().to_string(),
            cause,
        };
        let file = ffi::c_string(&path.to_string_lossy())?;
        let mut progress = Progress { report: &mut report };
        log::take_last_error();
        let devices = params.devices.clone().unwrap_or_default();
        let split = devices.iter().any(Device::is_of_split);
        let _unread = (split && parts == Parts::All).then(Unread::begin);
        let (handle, error) = params.with_raw(|raw| {
            if split {
                raw.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
            }
            if parts == Parts::Outline {
                raw.no_alloc = true;
                raw.load_mode = sys::LLAMA_LOAD_MODE_NONE;
            }
            raw.progress_callback = Some(on_progress);
            raw.progress_callback_user_data = (&raw mut progress).cast();
            // SAFETY: all pointers in `raw` and `file` outlive the call.
            ffi::with_error(|error| unsafe { ffi::mesh_model_load(file.as_ptr(), *raw, error) })
        });
        let handle = NonNull::new(handle).ok_or_else(|| {
            failed(
                error
                    .or_else(log::take_last_error)
                    .unwrap_or_else(|| "it gave no reason".into()),
            )
        })?;
        // SAFETY: the model is loaded; its vocabulary lives as long as it does.
        let vocab = unsafe { sys::llama_model_get_vocab(handle.as_ptr()) };
        let vocab = NonNull::new(vocab.cast_mut()).ok_or_else(|| failed("it has no vocabulary".into()))?;
        Ok(Self {
            handle,
            vocab,
            _devices: devices,
        })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.handle.as_ptr()
    }

    pub(super) fn vocab_ptr(&self) -> *const sys::llama_vocab {
        self.vocab.as_ptr()
    }

    /// The tokens of `text`. `add_special` adds what the model wants around a text, such as BOS;
    /// `parse_special` takes names of special tokens in the text for these tokens.
    ///
    /// # Errors
    /// [`Error::Rejected`] for a text over 2 GB or one that llama.cpp cannot read.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<Token>, Error> {
        let length =
            i32::try_from(text.len()).map_err(|_| Error::Rejected("the text is over 2 GB".into()))?;
        let mut tokens: Vec<Token> = vec![0; text.len() / 3 + 16];
        loop {
            let capacity = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: `text` and `tokens` are valid for the lengths given; nothing is kept.
            let (count, error) = ffi::with_error(|error| unsafe {
                ffi::mesh_tokenize(
                    self.vocab.as_ptr(),
                    text.as_ptr().cast::<c_char>(),
                    length,
                    tokens.as_mut_ptr(),
                    capacity,
                    add_special,
                    parse_special,
                    error,
                )
            });
            if count == i32::MIN {
                return Err(Error::Rejected(
                    error.unwrap_or_else(|| "the text cannot be tokenized".into()),
                ));
            }
            let needed = count.unsigned_abs() as usize;
            if count >= 0 {
                tokens.truncate(needed);
                return Ok(tokens);
            }
            tokens.resize(needed, 0);
        }
    }

    /// The bytes of one token, which need not be whole characters. Special tokens have none unless
    /// `special` is set.
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        if token < 0 || token as u32 >= self.vocab_size() {
            return Vec::new();
        }
        let mut bytes = vec![0_u8; 32];
        loop {
            let capacity = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: the token is in the vocabulary; `bytes` is valid for the length given.
            let written = unsafe {
                sys::llama_token_to_piece(
                    self.vocab.as_ptr(),
                    token,
                    bytes.as_mut_ptr().cast(),
                    capacity,
                    0,
                    special,
                )
            };
            let needed = written.unsigned_abs() as usize;
            if written >= 0 {
                bytes.truncate(needed);
                return bytes;
            }
            bytes.resize(needed, 0);
        }
    }

    /// The text of `tokens`; bytes that are no UTF-8 become U+FFFD.
    pub fn detokenize(&self, tokens: &[Token], special: bool) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| self.piece(*token, special))
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tokens in the vocabulary: a row of logits has as many numbers.
    pub fn vocab_size(&self) -> u32 {
        // SAFETY: reads a field.
        unsafe { sys::llama_vocab_n_tokens(self.vocab.as_ptr()) }.unsigned_abs()
    }

    /// Whether `token` ends a text.
    pub fn is_end(&self, token: Token) -> bool {
        // SAFETY: llama.cpp looks the token up in a set.
        unsafe { sys::llama_vocab_is_eog(self.vocab.as_ptr(), token) }
    }

    /// Whether the model names tokens that must never be chosen.
    pub fn suppresses_tokens(&self) -> bool {
        let mut count = 0;
        // SAFETY: `count` is valid during the call.
        unsafe { sys::llama_vocab_get_suppress_tokens(self.vocab.as_ptr(), &mut count) };
        count > 0
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: reads a field.
        present(unsafe { sys::llama_vocab_bos(self.vocab.as_ptr()) })
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<Token> {
        // SAFETY: reads a field.
        present(unsafe { sys::llama_vocab_eos(self.vocab.as_ptr()) })
    }

    /// The token between two texts, and at the end of them, in models made for sentence pairs.
    pub fn separator(&self) -> Option<Token> {
        // SAFETY: reads a field.
        present(unsafe { sys::llama_vocab_sep(self.vocab.as_ptr()) })
    }

    /// Whether a text wants [`Self::eos`] after it.
    pub fn add_eos(&self) -> bool {
        // SAFETY: reads a field.
        unsafe { sys::llama_vocab_get_add_eos(self.vocab.as_ptr()) }
    }

    /// Whether two texts want [`Self::separator`] between them.
    pub fn add_separator(&self) -> bool {
        // SAFETY: reads a field.
        unsafe { sys::llama_vocab_get_add_sep(self.vocab.as_ptr()) }
    }

    /// Whether a text wants [`Self::bos`] before it.
    pub fn add_bos(&self) -> bool {
        // SAFETY: reads a field.
        unsafe { sys::llama_vocab_get_add_bos(self.vocab.as_ptr()) }
    }

    /// The tokens for filling gaps, if the model can.
    pub fn infill(&self) -> Option<Infill> {
        let vocab = self.vocab.as_ptr();
        // SAFETY: these read fields.
        let (prefix, suffix, middle) = unsafe {
            (
                sys::llama_vocab_fim_pre(vocab),
                sys::llama_vocab_fim_suf(vocab),
                sys::llama_vocab_fim_mid(vocab),
            )
        };
        Some(Infill {
            prefix: present(prefix)?,
            suffix: present(suffix)?,
            middle: present(middle)?,
        })
    }

    /// Tokens of context that the model was trained for.
    pub fn context_train(&self) -> u32 {
        // SAFETY: reads a field.
        unsafe { sys::llama_model_n_ctx_train(self.as_ptr()) }.unsigned_abs()
    }

    /// Layers, without those that guess the tokens after the next one.
    pub fn layers(&self) -> u32 {
        // SAFETY: reads a field.
        unsafe { sys::llama_model_n_layer(self.as_ptr()) }.unsigned_abs()
    }

    /// Numbers in a hidden state.
    pub fn hidden_length(&self) -> u32 {
        // SAFETY: reads a field.
        unsafe { sys::llama_model_n_embd(self.as_ptr()) }.unsigned_abs()
    }

    /// Numbers in an embedding.
    pub fn embedding_width(&self) -> u32 {
        // SAFETY: reads a field.
        unsafe { sys::llama_model_n_embd_out(self.as_ptr()) }.unsigned_abs()
    }

    /// Numbers of another model's hidden states that it takes for a token, if it guesses for one (EAGLE-3); else 0.
    pub fn target_states_width(&self) -> usize {
        // SAFETY: reads a field.
        let layers = unsafe { ffi::mesh_target_layer_count(self.as_ptr()) } as usize;
        let length = self.metadata("eagle3.target_hidden_size");
        let length = length.and_then(|length| length.parse::<usize>().ok());
        layers * length.unwrap_or(0)
    }

    /// Architecture, size and quantization in words.
    pub fn description(&self) -> String {
        // SAFETY: the buffer and its size belong together.
        read_text(|buffer, size| unsafe { sys::llama_model_desc(self.as_ptr(), buffer, size) })
            .unwrap_or_default()
    }

    /// The value of a metadata key, as text.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let key = ffi::c_string(key).ok()?;
        // SAFETY: `key` is a C string; the buffer and its size belong together.
        read_text(|buffer, size| unsafe {
            sys::llama_model_meta_val_str(self.as_ptr(), key.as_ptr(), buffer, size)
        })
    }

    /// llama.cpp's name of the architecture.
    pub fn architecture(&self) -> String {
        self.metadata("general.architecture").unwrap_or_default()
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        // SAFETY: adds up tensor sizes.
        unsafe { sys::llama_model_n_params(self.as_ptr()) }
    }

    /// Bytes of all weights.
    pub fn size_bytes(&self) -> u64 {
        // SAFETY: adds up tensor sizes.
        unsafe { sys::llama_model_size(self.as_ptr()) }
    }

    /// llama.cpp's number of how most weights are stored, by its `llama_ftype`; guessed from the weights
    /// where the file does not say.
    pub fn file_type(&self) -> u32 {
        // SAFETY: reads a field.
        let file_type = unsafe { sys::llama_model_ftype(self.as_ptr()) };
        file_type & !sys::LLAMA_FTYPE_GUESSED
    }

    /// Whether the model continues texts. Not so where attention sees what follows, as in models made
    /// for embeddings, nor where a text must pass an encoder first.
    pub fn makes_text(&self) -> bool {
        let causal = self.metadata(&format!("{}.attention.causal", self.architecture()));
        // SAFETY: these look the architecture up.
        let decoder_only = unsafe {
            sys::llama_model_has_decoder(self.as_ptr())
                && !sys::llama_model_has_encoder(self.as_ptr())
                && !sys::llama_model_is_diffusion(self.as_ptr())
        };
        decoder_only && causal.as_deref() != Some("false")
    }

    /// Whether a text must pass an encoder before a decoder continues it.
    pub fn is_encoder_decoder(&self) -> bool {
        // SAFETY: these look the architecture up.
        unsafe { sys::llama_model_has_decoder(self.as_ptr()) && sys::llama_model_has_encoder(self.as_ptr()) }
    }

    /// Whether tokens in the cache can be cut off, or shared with other sequences, one by one: not so
    /// where a recurrent state holds them all at once.
    pub fn has_recurrent_state(&self) -> bool {
        // SAFETY: these look the architecture up.
        unsafe { sys::llama_model_is_recurrent(self.as_ptr()) || sys::llama_model_is_hybrid(self.as_ptr()) }
    }

    /// Width of the sliding attention window in tokens, if some layers have one.
    pub fn sliding_window(&self) -> Option<u32> {
        // SAFETY: reads a field.
        let window = unsafe { sys::llama_model_n_swa(self.as_ptr()) };
        u32::try_from(window).ok().filter(|window| *window > 0)
    }
}

fn present(token: Token) -> Option<Token> {
    (token >= 0).then_some(token)
}

/// Calls a function that fills a buffer and returns the length of the whole text or a negative number.
fn read_text(fill: impl Fn(*mut c_char, usize) -> i32) -> Option<String> {
    let mut buffer: Vec<c_char> = vec![0; 256];
    let length = usize::try_from(fill(buffer.as_mut_ptr(), buffer.len())).ok()?;
    if length >= buffer.len() {
        buffer.resize(length + 1, 0);
        fill(buffer.as_mut_ptr(), buffer.len());
    }
    // SAFETY: llama.cpp ends the text with NUL inside the buffer.
    Some(
        unsafe { CStr::from_ptr(buffer.as_ptr()) }
            .to_string_lossy()
            .into_owned(),
    )
}
