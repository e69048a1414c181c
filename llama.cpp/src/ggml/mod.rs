//! The interface that a backend of ggml implements, as bindgen reads it from `ggml-backend-impl.h`.

/// Generated declarations.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::unwrap_used
)]
pub(crate) mod interface {
    use llama_cpp_sys_2::*;
    include!(concat!(env!("OUT_DIR"), "/ggml_backend.rs"));
}
