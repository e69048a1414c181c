//! How fast a GPU reads weights: what decides how long a token takes on it.

use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use crate::llama;

/// Columns of the matrices that are read, of two bytes a number.
const COLUMNS: i64 = 8192;
/// Rows of the first one, of a mebibyte.
const FEWEST_ROWS: i64 = 64;
/// Rows of the last one, of 256: more than caches hold.
const MOST_ROWS: i64 = 16_384;
/// Each one is so much larger than the one before.
const STEP: i64 = 4;
/// How often a graph reads its matrix, so that starting it counts little.
const TIMES: usize = 8;
/// What takes so long is no matter of caches: no larger one is tried, as devices of software take seconds for one.
const LONG_ENOUGH: Duration = Duration::from_millis(50);
/// Room for the names of a few tensors and a graph.
const CONTEXT_BYTES: usize = 1 << 20;

/// A stream of work on a GPU.
struct Stream(NonNull<sys::ggml_backend>);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by ggml and freed only here.
        unsafe { sys::ggml_backend_free(self.0.as_ptr()) };
    }
}

/// A graph and the memory of its tensors.
struct Products<'a> {
    stream: &'a Stream,
    graph: *mut sys::ggml_cgraph,
    context: NonNull<sys::ggml_context>,
    buffer: NonNull<sys::ggml_backend_buffer>,
}

impl Drop for Products<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made by ggml and are freed only here.
        unsafe {
            sys::ggml_backend_buffer_free(self.buffer.as_ptr());
            sys::ggml_free(self.context.as_ptr());
        }
    }
}

/// Bytes a second with which a GPU multiplies matrices with vectors. `None` where it has not the room, or cannot.
pub(super) fn bandwidth(gpu: &llama::Device) -> Option<u64> {
    // SAFETY: the device is an entry of ggml's registry.
    let stream = unsafe { sys::ggml_backend_dev_init(gpu.raw(), ptr::null()) };
    let stream = Stream(NonNull::new(stream)?);
    let mut rows = FEWEST_ROWS;
    let mut known = None;
    while rows <= MOST_ROWS && gpu.free / 2 >= bytes_of(rows) {
        let Some(taken) = Products::new(&stream, rows).and_then(|products| products.best_time()) else {
            break;
        };
        let bytes = bytes_of(rows) as f64 * TIMES as f64;
        known = Some((bytes / taken.as_secs_f64()) as u64);
        if taken >= LONG_ENOUGH {
            break;
        }
        rows *= STEP;
    }
    known
}

/// Bytes of a matrix of so many rows.
fn bytes_of(rows: i64) -> u64 {
    (COLUMNS * rows * 2) as u64
}

impl<'a> Products<'a> {
    /// The same product several times, of a matrix of zeros.
    fn new(stream: &'a Stream, rows: i64) -> Option<Self> {
        // SAFETY: the context holds what is made in it, which its size is enough for, and lives as long as the graph.
        // The buffer is given to its tensors by ggml.
        unsafe {
            let context = NonNull::new(sys::ggml_init(sys::ggml_init_params {
                mem_size: CONTEXT_BYTES,
                mem_buffer: ptr::null_mut(),
                no_alloc: true,
            }))?;
            let within = context.as_ptr();
            let matrix = sys::ggml_new_tensor_2d(within, sys::GGML_TYPE_F16, COLUMNS, rows);
            let vector = sys::ggml_new_tensor_2d(within, sys::GGML_TYPE_F32, COLUMNS, 1);
            let graph = sys::ggml_new_graph_custom(within, TIMES * 4, false);
            for _ in 0..TIMES {
                sys::ggml_build_forward_expand(graph, sys::ggml_mul_mat(within, matrix, vector));
            }
            let buffer = sys::ggml_backend_alloc_ctx_tensors(within, stream.0.as_ptr());
            let Some(buffer) = NonNull::new(buffer) else {
                sys::ggml_free(within);
                return None;
            };
            sys::ggml_backend_buffer_clear(buffer.as_ptr(), 0);
            Some(Self {
                stream,
                graph,
                context,
                buffer,
            })
        }
    }

    /// The least time that it takes; the first time does not count, for programs are compiled then.
    fn best_time(&self) -> Option<Duration> {
        self.time()?;
        Some(self.time()?.min(self.time()?).max(Duration::from_micros(1)))
    }

    fn time(&self) -> Option<Duration> {
        let begin = Instant::now();
        // SAFETY: stream and graph are live.
        let status = unsafe { sys::ggml_backend_graph_compute(self.stream.0.as_ptr(), self.graph) };
        (status == sys::GGML_STATUS_SUCCESS).then(|| begin.elapsed())
    }
}
