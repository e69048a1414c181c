//! Memory that AddressSanitizer watches, for `fuzz/`, which includes this file: what lies next to it is
//! nobody's, to the byte.

use std::alloc::{self, Layout};

/// As ggml aligns its own buffers.
const ALIGNMENT: usize = 64;

/// Exactly so many bytes.
pub(super) struct Block {
    start: *mut u8,
    layout: Layout,
}

impl Block {
    pub(super) fn new(size: usize) -> Self {
        assert_ne!(size, 0);
        let layout = Layout::from_size_align(size, ALIGNMENT).expect("sizes are limited");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc::alloc(layout) };
        assert!(!start.is_null());
        Self { start, layout }
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn size(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated so, and freed only here.
        unsafe { alloc::dealloc(self.start, self.layout) };
    }
}
