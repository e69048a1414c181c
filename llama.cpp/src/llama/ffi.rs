//! The declarations that bindgen makes of `shim/shim.h`, and what passes strings over the border.

#![allow(missing_docs, non_camel_case_types, unreachable_pub, clippy::unwrap_used)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use llama_cpp_sys_2::{
    ggml_cgraph, llama_batch, llama_context, llama_context_params, llama_model, llama_model_params,
    llama_token, llama_vocab,
};

use super::Error;

include!(concat!(env!("OUT_DIR"), "/shim.rs"));

/// Takes over a string that the shim allocated; `None` for null.
pub(super) fn take_string(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim returns null or a NUL-terminated string made by malloc, which is ours now.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: `text` came from the shim and is freed only here.
    unsafe { mesh_string_free(text) };
    Some(owned)
}

/// A C string of `text`. Inner NUL bytes, which no C string can hold, are an error.
pub(super) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Rejected("the text holds a NUL character".to_owned()))
}

/// Calls a function of the shim that reports what went wrong through its last argument.
pub(super) fn with_error<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> (T, Option<String>) {
    let mut error: *mut c_char = ptr::null_mut();
    let result = call(&mut error);
    (result, take_string(error))
}
