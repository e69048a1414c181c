//! The threads that compute on the CPU.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::Error;
use crate::priority;

/// How long a thread spins for the next step before it sleeps, from 0 to 100 (ggml's default is 50).
/// Spinning takes the core that carries tokens to clients: on two cores it cost 7 % of their rate.
const SPIN: u32 = 0;

/// `GGML_MAX_N_THREADS`.
const MOST: u32 = 512;

/// A pool of threads; without one ggml starts threads anew for each step.
#[derive(Debug)]
pub(crate) struct Threads {
    handle: NonNull<sys::ggml_threadpool>,
}

impl Threads {
    /// A pool of `count` threads, the caller's being one of them.
    pub(crate) fn new(count: u32) -> Result<Self, Error> {
        let count = i32::try_from(count.clamp(1, MOST)).unwrap_or(1);
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::ggml_threadpool_params_default(count) };
        params.poll = SPIN;
        // Threads have the priority of the one that starts them.
        let pool = std::thread::scope(|scope| {
            let starter = scope.spawn(|| {
                priority::compute();
                // SAFETY: the parameters are valid during the call.
                Self::of(unsafe { sys::ggml_threadpool_new(&mut params) })
            });
            starter.join()
        });
        pool.ok()
            .flatten()
            .ok_or_else(|| Error::Context("its threads cannot be started".into()))
    }

    fn of(handle: *mut sys::ggml_threadpool) -> Option<Self> {
        NonNull::new(handle).map(|handle| Self { handle })
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.handle.as_ptr()
    }
}

// SAFETY: a pool has no ties to the thread that made it.
unsafe impl Send for Threads {}
// SAFETY: a shared reference only gives the pointer, which its users do not use at once.
unsafe impl Sync for Threads {}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_threadpool_new` and freed only here, after the context that used it.
        unsafe { sys::ggml_threadpool_free(self.handle.as_ptr()) };
    }
}
