//! The sampler chain of llama.cpp's `common`.

use std::ptr::NonNull;

use serde::Serialize;

use super::{Context, Error, Model, Token, ffi};

/// Chooses tokens for one sequence; remembers what it chose.
#[derive(Debug)]
pub struct Sampler {
    handle: NonNull<ffi::mesh_sampler>,
}

// SAFETY: a sampler is used by one thread at a time, as `&mut` says, and holds no thread's state.
unsafe impl Send for Sampler {}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: made by `mesh_sampler_new` and freed only here.
        unsafe { ffi::mesh_sampler_free(self.handle.as_ptr()) };
    }
}

impl Sampler {
    /// A sampler with `params`, which serialise to what `shim/sampler.cpp` reads.
    ///
    /// # Errors
    /// [`Error::Rejected`] where a parameter or the grammar makes no sense, saying which.
    pub fn new(model: &Model, params: &impl Serialize) -> Result<Self, Error> {
        let params = serde_json::to_string(params).map_err(|error| Error::Rejected(error.to_string()))?;
        let params = ffi::c_string(&params)?;
        // SAFETY: the model and `params` outlive the call.
        let (handle, error) =
            ffi::with_error(|error| unsafe { ffi::mesh_sampler_new(model.as_ptr(), params.as_ptr(), error) });
        NonNull::new(handle)
            .map(|handle| Self { handle })
            .ok_or_else(|| Error::Rejected(error.unwrap_or_default()))
    }

    /// The token chosen from row `row` of the last step of `context`. It is not accepted yet.
    ///
    /// # Errors
    /// [`Error::Decode`] where llama.cpp throws; [`Error::Rejected`] where the row has no logits.
    pub fn sample(&mut self, context: &mut Context, row: usize) -> Result<Token, Error> {
        // llama.cpp aborts the process where a row is not there.
        let row = context
            .row_for_sampler(row)
            .ok_or_else(|| Error::Rejected(format!("row {row} of the step has no logits")))?;
        let mut token = 0;
        // SAFETY: the row was just found, `token` is valid during the call.
        let (status, error) = ffi::with_error(|error| unsafe {
            ffi::mesh_sampler_sample(self.handle.as_ptr(), context.as_ptr(), row, &mut token, error)
        });
        if status == 0 {
            Ok(token)
        } else {
            Err(Error::Decode(error.unwrap_or_default()))
        }
    }

    /// Tells the sampler that `token` follows: one that it chose, or (not `generated`) one of the prompt.
    ///
    /// # Errors
    /// [`Error::Decode`] where the grammar does not allow the token.
    pub fn accept(&mut self, token: Token, generated: bool) -> Result<(), Error> {
        // SAFETY: the handle is live.
        let (status, error) = ffi::with_error(|error| unsafe {
            ffi::mesh_sampler_accept(self.handle.as_ptr(), token, generated, error)
        });
        if status == 0 {
            Ok(())
        } else {
            Err(Error::Decode(error.unwrap_or_default()))
        }
    }
}
