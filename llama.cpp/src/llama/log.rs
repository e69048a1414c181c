//! llama.cpp's log, line by line, as `tracing` events.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::sync::Once;

use llama_cpp_sys_2 as sys;

use super::ffi;

thread_local! {
    /// llama.cpp logs parts of lines; a line belongs to the thread that began it.
    static LINE: RefCell<(sys::ggml_log_level, String)> = const { RefCell::new((sys::GGML_LOG_LEVEL_NONE, String::new())) };
    static LAST_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether only errors are worth a word.
    static ON_TRIAL: Cell<bool> = const { Cell::new(false) };
}

/// Starts llama.cpp: its backends and its log. Further calls do nothing.
pub fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the callback is a function that lives as long as the program and keeps no data.
        unsafe {
            sys::llama_log_set(Some(on_log), std::ptr::null_mut());
            sys::ggml_log_set(Some(on_log), std::ptr::null_mut());
            sys::ggml_set_abort_callback(Some(on_abort));
            sys::llama_backend_init();
            ffi::mesh_silence_common();
        }
    });
}

/// The last error that llama.cpp logged on this thread since the last call: it often is the only
/// word on why something returned null.
pub(super) fn take_last_error() -> Option<String> {
    LAST_ERROR.with_borrow_mut(Option::take)
}

/// Has llama.cpp try something on this thread: what it warns of it says again if it comes to that.
pub(super) fn on_trial<T>(run: impl FnOnce() -> T) -> T {
    struct Over(bool);
    impl Drop for Over {
        fn drop(&mut self) {
            ON_TRIAL.set(self.0);
        }
    }
    let _over = Over(ON_TRIAL.replace(true));
    run()
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A panic must not cross the border; losing a line of log is the lesser harm.
    let _ = std::panic::catch_unwind(|| append(level, &text));
}

/// ggml is about to abort the process. Without this it would call a debugger to print a backtrace.
unsafe extern "C" fn on_abort(message: *const c_char) {
    if !message.is_null() {
        // SAFETY: ggml passes a NUL-terminated string that lives during the call.
        let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
        // Not by `tracing`: the thread that gives up may hold its locks.
        let _ = writeln!(std::io::stderr(), "{}", message.trim_end());
    }
}

fn append(level: sys::ggml_log_level, text: &str) {
    LINE.with_borrow_mut(|(line_level, line)| {
        if level != sys::GGML_LOG_LEVEL_CONT {
            *line_level = level;
        }
        line.push_str(text);
        if line.ends_with('\n') || line.len() > 8192 {
            emit(*line_level, line.trim_end());
            line.clear();
        }
    });
}

fn emit(level: sys::ggml_log_level, line: &str) {
    if line.is_empty() {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            LAST_ERROR.with_borrow_mut(|last| *last = Some(line.to_owned()));
            tracing::error!(target: "llama_cpp", "{line}");
        }
        _ if ON_TRIAL.get() => tracing::trace!(target: "llama_cpp", "{line}"),
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama_cpp", "{line}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama_cpp", "{line}"),
        _ => tracing::trace!(target: "llama_cpp", "{line}"),
    }
}
