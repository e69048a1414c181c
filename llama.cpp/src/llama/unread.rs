//! Loading a model of which only some is kept here, without reading the rest from disk.
//!
//! llama.cpp maps a model's file so that the system reads all of it ahead, except on machines where
//! memory is not uniform. It asks the CPU's backend for that, by name, so the answer can be given here.

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use llama_cpp_sys_2 as sys;

use crate::ggml::interface as ggml;

type GetAddress = unsafe extern "C" fn(sys::ggml_backend_reg_t, *const c_char) -> *mut c_void;

/// What the CPU's backend answers with otherwise.
static USUAL: OnceLock<Option<GetAddress>> = OnceLock::new();

/// Keeps others from loading at the same time: what the CPU's backend answers, it answers to all.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static LOADING: Mutex<()> = Mutex::new(());
    LOADING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, mapped files are not read ahead. Only who loads a model alone may have it.
#[derive(Debug)]
pub(super) struct Unread {
    registry: *mut ggml::ggml_backend_reg,
}

unsafe extern "C" fn yes() -> bool {
    true
}

unsafe extern "C" fn answer(registry: sys::ggml_backend_reg_t, name: *const c_char) -> *mut c_void {
    // SAFETY: ggml asks with C strings.
    if unsafe { CStr::from_ptr(name) } == c"ggml_backend_cpu_is_numa" {
        return yes as *mut c_void;
    }
    match USUAL.get() {
        // SAFETY: the arguments are passed on.
        Some(Some(usual)) => unsafe { usual(registry, name) },
        _ => std::ptr::null_mut(),
    }
}

impl Unread {
    pub(super) fn begin() -> Self {
        // SAFETY: the CPU's device is in the registry for as long as the program runs; its entry is
        // changed by nobody else, for models are loaded one at a time.
        unsafe {
            let cpu = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            let registry: *mut ggml::ggml_backend_reg = sys::ggml_backend_dev_backend_reg(cpu).cast();
            USUAL.get_or_init(|| (*registry).iface.get_proc_address);
            (*registry).iface.get_proc_address = Some(answer);
            Self { registry }
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // SAFETY: as in `begin`.
        unsafe { (*self.registry).iface.get_proc_address = USUAL.get().copied().flatten() };
    }
}
