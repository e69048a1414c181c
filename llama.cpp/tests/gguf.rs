//! Files that this crate writes are loaded and run by llama.cpp itself.

#![cfg(feature = "native")]
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, Once, PoisonError};

use llama_cpp_sys_2 as sys;
use llama_engine::gguf::random::{
    self, Architecture, ByteTokens, Output, Spec, WeightType, qwen2_half_billion, small,
};
use llama_engine::gguf::{Gguf, TensorType};

/// One, as tests run beside each other and llama.cpp's threads wait for one another spinning.
const THREADS: i32 = 1;

/// What llama.cpp has complained about.
static COMPLAINTS: Mutex<String> = Mutex::new(String::new());

/// A model and a context of llama.cpp.
struct Engine {
    model: NonNull<sys::llama_model>,
    context: NonNull<sys::llama_context>,
    vocabulary: *const sys::llama_vocab,
}

impl Engine {
    fn load(path: &Path, encoder: bool) -> Self {
        static INITIALISED: Once = Once::new();
        // SAFETY: called once, before anything else of llama.cpp.
        INITIALISED.call_once(|| unsafe {
            sys::llama_backend_init();
            sys::llama_log_set(Some(complain), ptr::null_mut());
        });
        let path_text = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string; parameters are llama.cpp's own defaults but for plain fields;
        // results are checked for null before they are used.
        unsafe {
            let mut parameters = sys::llama_model_default_params();
            parameters.n_gpu_layers = 0;
            let model = NonNull::new(sys::llama_model_load_from_file(path_text.as_ptr(), parameters))
                .unwrap_or_else(|| panic!("{} is refused: {}", path.display(), complaints()));
            let mut parameters = sys::llama_context_default_params();
            parameters.n_ctx = 256;
            parameters.n_threads = THREADS;
            parameters.n_threads_batch = THREADS;
            parameters.embeddings = encoder;
            let context = NonNull::new(sys::llama_init_from_model(model.as_ptr(), parameters))
                .unwrap_or_else(|| panic!("no context for {}", path.display()));
            Self {
                model,
                context,
                vocabulary: sys::llama_model_get_vocab(model.as_ptr()),
            }
        }
    }

    fn of(spec: &Spec) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        spec.write(&path).unwrap();
        Self::load(&path, spec.architecture.is_encoder())
    }

    fn tokenize(&self, text: &str) -> Vec<sys::llama_token> {
        let mut tokens = vec![0; text.len() + 8];
        // SAFETY: text and tokens are passed with their lengths.
        let count = unsafe {
            sys::llama_tokenize(
                self.vocabulary,
                text.as_ptr().cast(),
                text.len() as i32,
                tokens.as_mut_ptr(),
                tokens.len() as i32,
                true,
                true,
            )
        };
        tokens.truncate(usize::try_from(count).unwrap());
        tokens
    }

    fn text(&self, token: sys::llama_token) -> Vec<u8> {
        let mut bytes = vec![0u8; 64];
        // SAFETY: the buffer is passed with its length; the token is of this vocabulary.
        let length = unsafe {
            sys::llama_token_to_piece(
                self.vocabulary,
                token,
                bytes.as_mut_ptr().cast(),
                bytes.len() as i32,
                0,
                true,
            )
        };
        bytes.truncate(usize::try_from(length).unwrap());
        bytes
    }

    fn detokenize(&self, tokens: &[sys::llama_token]) -> Vec<u8> {
        tokens.iter().flat_map(|&token| self.text(token)).collect()
    }

    /// Appends tokens to the context and returns the logits after the last one.
    fn decode(&self, tokens: &[sys::llama_token]) -> Vec<f32> {
        let mut tokens = tokens.to_vec();
        // SAFETY: the batch points to `tokens`, which outlives it; there are logits for its last token,
        // as many as the vocabulary has tokens.
        unsafe {
            let batch = sys::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
            assert_eq!(sys::llama_decode(self.context.as_ptr(), batch), 0);
            let logits = sys::llama_get_logits_ith(self.context.as_ptr(), -1);
            assert!(!logits.is_null());
            let count = sys::llama_vocab_n_tokens(self.vocabulary);
            std::slice::from_raw_parts(logits, count as usize).to_vec()
        }
    }

    /// Forgets all tokens.
    fn clear(&self) {
        // SAFETY: the context is alive, and so is its memory.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), true) };
    }

    /// The likeliest continuation of a prompt.
    fn continue_greedily(&self, prompt: &str, count: usize) -> Vec<sys::llama_token> {
        let mut logits = self.decode(&self.tokenize(prompt));
        let mut tokens = Vec::new();
        for _ in 0..count {
            assert!(logits.iter().all(|logit| logit.is_finite()));
            let (best, _) = logits
                .iter()
                .enumerate()
                .max_by(|(_, a), (_, b)| a.total_cmp(b))
                .unwrap();
            tokens.push(best as sys::llama_token);
            logits = self.decode(&tokens[tokens.len() - 1..]);
        }
        tokens
    }

    fn is_end(&self, token: sys::llama_token) -> bool {
        // SAFETY: the vocabulary is alive.
        unsafe { sys::llama_vocab_is_eog(self.vocabulary, token) }
    }

    /// A text's embedding.
    fn embed(&self, text: &str) -> Vec<f32> {
        let mut tokens = self.tokenize(text);
        // SAFETY: as in `decode`; a pooled embedding is as long as the model's hidden states.
        unsafe {
            let batch = sys::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
            assert_eq!(sys::llama_encode(self.context.as_ptr(), batch), 0);
            let embedding = sys::llama_get_embeddings_seq(self.context.as_ptr(), 0);
            assert!(!embedding.is_null());
            let length = sys::llama_model_n_embd(self.model.as_ptr());
            std::slice::from_raw_parts(embedding, length as usize).to_vec()
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: both were created in `load` and are freed here only, the context first.
        unsafe {
            sys::llama_free(self.context.as_ptr());
            sys::llama_model_free(self.model.as_ptr());
        }
    }
}

unsafe extern "C" fn complain(
    level: sys::ggml_log_level,
    text: *const std::os::raw::c_char,
    _data: *mut std::os::raw::c_void,
) {
    if level == sys::GGML_LOG_LEVEL_ERROR {
        // SAFETY: llama.cpp passes a C string that lives for this call.
        let text = unsafe { CStr::from_ptr(text) };
        let mut complaints = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.push_str(&text.to_string_lossy());
    }
}

fn complaints() -> String {
    COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn deviation(logits: &[f32]) -> f32 {
    let count = logits.len() as f32;
    let mean = logits.iter().sum::<f32>() / count;
    (logits.iter().map(|logit| (logit - mean).powi(2)).sum::<f32>() / count).sqrt()
}

/// Logits of the tokens that a model generates.
fn usual_logits(engine: &Engine, logits: &[f32]) -> Vec<f32> {
    let letter = engine.tokenize("x")[1] as usize;
    logits[letter..].to_vec()
}

fn generates_varied_text(spec: &Spec) {
    let name = format!("{} {:?}", spec.architecture, spec.weight_type);
    let engine = Engine::of(spec);
    let logits = engine.decode(&engine.tokenize("The answer to the question"));
    let spread = deviation(&usual_logits(&engine, &logits));
    assert!((1.5..6.0).contains(&spread), "{name}: logits deviate by {spread}");
    engine.clear();
    let tokens = engine.continue_greedily("The answer to the question", 64);
    let distinct: HashSet<_> = tokens.iter().collect();
    assert!(distinct.len() > 8, "{name}: {tokens:?}");
    assert!(
        !tokens.iter().any(|&token| engine.is_end(token)),
        "{name}: {tokens:?}"
    );
    String::from_utf8(engine.detokenize(&tokens)).unwrap();
    engine.clear();
    let other = engine.continue_greedily("An answer to the question", 64);
    assert_ne!(
        tokens, other,
        "{name} does not depend on the beginning of its prompt"
    );
}

#[test]
fn every_generating_architecture_generates_varied_text_from_the_whole_prompt() {
    for architecture in Architecture::ALL {
        if !architecture.is_encoder() {
            generates_varied_text(&small(architecture, 1));
        }
    }
}

#[test]
fn matrices_may_be_f16_or_q8_0_and_tied() {
    for weight_type in [WeightType::F16, WeightType::Q8_0] {
        for architecture in Architecture::ALL {
            if !architecture.is_encoder() {
                let base = small(architecture, 2);
                generates_varied_text(&Spec { weight_type, ..base });
            }
        }
    }
    generates_varied_text(&Spec {
        output: Output::Tied,
        ..small(Architecture::Llama, 3)
    });
}

#[test]
fn an_encoder_tells_texts_apart() {
    let engine = Engine::of(&small(Architecture::Bert, 1));
    let (one, other) = (engine.embed("about the time"), engine.embed("one of which"));
    assert!(one.iter().all(|number| number.is_finite()));
    assert!(deviation(&one) > 0.01);
    assert_ne!(one, other);
    assert_eq!(one, engine.embed("about the time"));
}

#[test]
fn printable_text_survives_the_tokenizer() {
    let engine = Engine::of(&small(Architecture::Llama, 1));
    let printable: String = (' '..='~').collect();
    for text in [
        printable.as_str(),
        "  two  spaces,\n\nlines\tand tabs \n",
        "the word that you said",
        "é中😀",
        " ",
    ] {
        let tokens = engine.tokenize(text);
        let decoded = String::from_utf8(engine.detokenize(&tokens[1..])).unwrap();
        assert_eq!(decoded, text);
    }
    assert!(engine.tokenize(" about").len() < 4, "common words are tokens");
}

#[test]
fn any_byte_becomes_valid_text_or_itself() {
    let text = "\u{1}æ\u{10ffff}";
    let engine = Engine::of(&small(Architecture::Llama, 1));
    let tokens = engine.tokenize(text);
    let decoded = String::from_utf8(engine.detokenize(&tokens[1..])).unwrap();
    assert_eq!(decoded, "<0x01><0xC3><0xA6><0xF4><0x8F><0xBF><0xBF>");
    let engine = Engine::of(&Spec {
        byte_tokens: ByteTokens::Bytes,
        ..small(Architecture::Llama, 1)
    });
    let tokens = engine.tokenize(text);
    assert_eq!(engine.detokenize(&tokens[1..]), text.as_bytes());
}

#[test]
fn chat_markers_are_tokens_and_end_of_turn_ends_generation() {
    let engine = Engine::of(&small(Architecture::Llama, 1));
    let tokens = engine.tokenize("<|im_start|>user\nhi<|im_end|></s>");
    assert_eq!(tokens[..2], [1, 3]);
    assert_eq!(tokens[tokens.len() - 2..], [4, 2]);
    assert!(engine.is_end(4) && engine.is_end(2) && !engine.is_end(3));
}

#[test]
fn generation_ends_as_readily_as_asked_for() {
    let prompts: Vec<String> = (0..20).map(|number| format!("prompt {number}")).collect();
    let ends = |end_of_generation| {
        let engine = Engine::of(&Spec {
            end_of_generation,
            ..small(Architecture::Qwen3, 1)
        });
        let ended = prompts.iter().filter(|prompt| {
            engine.clear();
            let tokens = engine.continue_greedily(prompt, 20);
            tokens.iter().any(|&token| engine.is_end(token))
        });
        ended.count()
    };
    assert_eq!(ends(random::ENDLESS), 0);
    assert_eq!(ends(20.0), 20);
    let sometimes = ends(5.0);
    assert!((2..=20).contains(&sometimes), "{sometimes} of 20");
}

#[test]
fn a_model_in_parts_runs_like_the_same_model_in_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let spec = small(Architecture::Qwen3, 1);
    let count = spec.tensor_count().unwrap();
    let parts = spec
        .write_parts(directory.path().join("model"), &[0, 7, count - 7])
        .unwrap();
    let divided = Engine::load(&parts[0], false);
    let whole = Engine::of(&spec);
    assert_eq!(
        divided.continue_greedily("one two", 16),
        whole.continue_greedily("one two", 16)
    );
}

#[test]
fn the_table_of_tensor_types_is_that_of_ggml() {
    for &tensor_type in TensorType::ALL {
        let id = tensor_type.id() as sys::ggml_type;
        // SAFETY: the number is below GGML_TYPE_COUNT, as ggml knows the type; names are static.
        let (elements, bytes, name) = unsafe {
            (
                sys::ggml_blck_size(id),
                sys::ggml_type_size(id),
                CStr::from_ptr(sys::ggml_type_name(id)),
            )
        };
        assert_eq!(tensor_type.block_elements(), elements as u64, "{tensor_type}");
        assert_eq!(tensor_type.block_bytes(), bytes as u64, "{tensor_type}");
        assert_eq!(tensor_type.name(), name.to_str().unwrap());
    }
    let known = TensorType::ALL
        .iter()
        .map(|known| known.id() as sys::ggml_type)
        .max();
    assert_eq!(known, Some(sys::GGML_TYPE_COUNT - 1), "ggml has new types");
}

#[test]
fn reader_and_ggml_agree_where_tensors_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    small(Architecture::DeepSeek2, 1).write(&path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let text = CString::new(path.to_str().unwrap()).unwrap();
    let parameters = sys::gguf_init_params {
        no_alloc: true,
        ctx: ptr::null_mut(),
    };
    // SAFETY: the path is a C string, the result is checked, indices are below the count, names are
    // copied before the context is freed.
    unsafe {
        let context = sys::gguf_init_from_file(text.as_ptr(), parameters);
        assert!(!context.is_null());
        assert_eq!(sys::gguf_get_n_tensors(context), gguf.tensors().len() as i64);
        assert_eq!(sys::gguf_get_n_kv(context), gguf.metadata().len() as i64);
        let data_offset = sys::gguf_get_data_offset(context) as u64;
        assert_eq!(data_offset, gguf.data_offset());
        for (index, tensor) in gguf.tensors().iter().enumerate() {
            let index = index as i64;
            let name = CStr::from_ptr(sys::gguf_get_tensor_name(context, index));
            assert_eq!(name.to_str().unwrap(), tensor.name);
            let offset = data_offset + sys::gguf_get_tensor_offset(context, index) as u64;
            assert_eq!(offset, tensor.offset, "{}", tensor.name);
            let bytes = sys::gguf_get_tensor_size(context, index) as u64;
            assert_eq!(bytes, tensor.bytes, "{}", tensor.name);
        }
        sys::gguf_free(context);
    }
}

#[test]
#[ignore = "writes and runs a model of 430 MB"]
fn the_model_for_benchmarks_generates_varied_text() {
    generates_varied_text(&qwen2_half_billion(1));
}
