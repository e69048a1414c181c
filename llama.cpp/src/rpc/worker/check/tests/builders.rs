//! Operations as ggml's own builders make them, for what no random model has.

use std::ffi::c_void;

use llama_cpp_sys_2 as sys;

use super::capture::Captured;
use crate::rpc::graph::Graph;

/// A context of ggml in which nothing is allocated.
struct Builder(*mut sys::ggml_context);

impl Drop for Builder {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing points to it any more.
        unsafe { sys::ggml_free(self.0) };
    }
}

type T = *mut sys::ggml_tensor;
type Build = fn(&Builder) -> T;

impl Builder {
    fn new() -> Self {
        let params = sys::ggml_init_params {
            mem_size: 1 << 20,
            mem_buffer: std::ptr::null_mut::<c_void>(),
            no_alloc: true,
        };
        // SAFETY: plain parameters.
        Self(unsafe { sys::ggml_init(params) })
    }

    fn of(&self, element: sys::ggml_type, shape: [i64; 4]) -> T {
        let [a, b, c, d] = shape;
        // SAFETY: the context has room for some thousand tensors.
        unsafe { sys::ggml_new_tensor_4d(self.0, element, a, b, c, d) }
    }

    fn f32(&self, a: i64, b: i64, c: i64, d: i64) -> T {
        self.of(sys::GGML_TYPE_F32, [a, b, c, d])
    }

    fn f16(&self, a: i64, b: i64, c: i64, d: i64) -> T {
        self.of(sys::GGML_TYPE_F16, [a, b, c, d])
    }

    fn i32(&self, a: i64, b: i64, c: i64, d: i64) -> T {
        self.of(sys::GGML_TYPE_I32, [a, b, c, d])
    }

    fn heads(&self) -> T {
        self.f32(64, 2, 6, 1)
    }

    fn state(&self) -> T {
        self.f32(64 * 64 * 2, 3, 1, 1)
    }
}

/// Calls a builder of ggml.
macro_rules! ggml {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: ggml's builders take tensors of one context, look at their shapes, and allocate nothing
        // but another tensor there.
        unsafe { sys::$function($($argument),*) }
    };
}

const BUILDS: &[(&str, Build)] = &[
    ("sqr", |b| ggml!(ggml_sqr(b.0, b.f32(8, 3, 2, 1)))),
    ("sqrt", |b| ggml!(ggml_sqrt(b.0, b.f32(8, 3, 2, 1)))),
    ("log", |b| ggml!(ggml_log(b.0, b.f32(8, 3, 2, 1)))),
    ("sin", |b| ggml!(ggml_sin(b.0, b.f32(8, 3, 2, 1)))),
    ("cos", |b| ggml!(ggml_cos(b.0, b.f32(8, 3, 2, 1)))),
    ("sum", |b| ggml!(ggml_sum(b.0, b.f32(8, 3, 2, 1)))),
    ("mean", |b| ggml!(ggml_mean(b.0, b.f32(8, 3, 2, 1)))),
    ("sum_rows", |b| ggml!(ggml_sum_rows(b.0, b.f32(8, 3, 2, 1)))),
    ("cumsum", |b| ggml!(ggml_cumsum(b.0, b.f32(8, 3, 2, 1)))),
    ("argmax", |b| ggml!(ggml_argmax(b.0, b.f32(8, 3, 1, 1)))),
    ("dup", |b| ggml!(ggml_dup(b.0, b.f32(8, 3, 2, 1)))),
    ("div", |b| {
        ggml!(ggml_div(b.0, b.f32(8, 3, 2, 1), b.f32(8, 1, 2, 1)))
    }),
    ("sub", |b| {
        ggml!(ggml_sub(b.0, b.f32(8, 3, 2, 1), b.f32(4, 1, 1, 1)))
    }),
    ("add f16", |b| {
        ggml!(ggml_add(b.0, b.f16(8, 3, 2, 1), b.f32(8, 1, 1, 1)))
    }),
    ("repeat", |b| {
        ggml!(ggml_repeat(b.0, b.f32(8, 1, 1, 1), b.f32(8, 3, 2, 1)))
    }),
    ("concat", |b| {
        ggml!(ggml_concat(b.0, b.f32(8, 3, 2, 1), b.f32(8, 5, 2, 1), 1))
    }),
    ("concat q8", |b| {
        let part = || b.of(sys::GGML_TYPE_Q8_0, [64, 2, 1, 1]);
        ggml!(ggml_concat(b.0, part(), part(), 0))
    }),
    ("norm", |b| ggml!(ggml_norm(b.0, b.f32(8, 3, 2, 1), 1e-5))),
    ("l2_norm", |b| ggml!(ggml_l2_norm(b.0, b.f32(8, 3, 2, 1), 1e-5))),
    ("group_norm", |b| {
        ggml!(ggml_group_norm(b.0, b.f32(8, 3, 6, 1), 2, 1e-5))
    }),
    ("scale", |b| {
        ggml!(ggml_scale_bias(b.0, b.f32(8, 3, 2, 1), 2.0, 1.0))
    }),
    ("clamp", |b| ggml!(ggml_clamp(b.0, b.f32(8, 3, 2, 1), -1.0, 1.0))),
    ("fill", |b| ggml!(ggml_fill(b.0, b.f32(8, 3, 2, 1), 1.0))),
    ("tri", |b| {
        ggml!(ggml_tri(b.0, b.f32(8, 8, 2, 1), sys::GGML_TRI_TYPE_LOWER))
    }),
    ("diag", |b| ggml!(ggml_diag(b.0, b.f32(8, 1, 2, 1)))),
    ("pad", |b| ggml!(ggml_pad(b.0, b.f32(8, 3, 2, 1), 2, 1, 0, 3))),
    ("arange", |b| ggml!(ggml_arange(b.0, 3.0, 17.0, 1.5))),
    ("set", |b| {
        let whole = b.f32(8, 4, 2, 1);
        ggml!(ggml_set(b.0, whole, b.f32(8, 2, 2, 1), 32, 128, 256, 64))
    }),
    ("set_inplace", |b| {
        let whole = b.f32(8, 4, 2, 1);
        ggml!(ggml_set_inplace(b.0, whole, b.f32(8, 2, 2, 1), 32, 128, 256, 64))
    }),
    ("argsort", |b| {
        ggml!(ggml_argsort(b.0, b.f32(40, 3, 2, 1), sys::GGML_SORT_ORDER_DESC))
    }),
    ("top_k", |b| ggml!(ggml_top_k(b.0, b.f32(40, 3, 2, 1), 5))),
    ("im2col", |b| {
        ggml!(ggml_im2col(
            b.0,
            b.f32(3, 3, 2, 5),
            b.f32(9, 8, 2, 2),
            1,
            1,
            1,
            1,
            1,
            1,
            true,
            sys::GGML_TYPE_F16,
        ))
    }),
    ("im2col 1d", |b| {
        ggml!(ggml_im2col(
            b.0,
            b.f32(3, 2, 5, 1),
            b.f32(9, 2, 2, 1),
            1,
            0,
            1,
            0,
            1,
            0,
            false,
            sys::GGML_TYPE_F32,
        ))
    }),
    ("pool_2d", |b| {
        ggml!(ggml_pool_2d(
            b.0,
            b.f32(9, 8, 2, 2),
            sys::GGML_OP_POOL_MAX,
            3,
            2,
            2,
            2,
            0.0,
            1.0,
        ))
    }),
    ("hadamard", |b| {
        let product = ggml!(ggml_mul_mat(b.0, b.f32(64, 64, 1, 1), b.f32(64, 3, 2, 1)));
        ggml!(ggml_mul_mat_set_hint(product, sys::GGML_HINT_SRC0_IS_HADAMARD));
        product
    }),
    ("mul_mat q4_K", |b| {
        ggml!(ggml_mul_mat(
            b.0,
            b.of(sys::GGML_TYPE_Q4_K, [256, 20, 2, 1]),
            b.f32(256, 17, 4, 3),
        ))
    }),
    ("mul_mat iq2_xs", |b| {
        ggml!(ggml_mul_mat(
            b.0,
            b.of(sys::GGML_TYPE_IQ2_XS, [256, 20, 1, 1]),
            b.f32(256, 40, 1, 1),
        ))
    }),
    ("mul_mat nvfp4", |b| {
        ggml!(ggml_mul_mat(
            b.0,
            b.of(sys::GGML_TYPE_NVFP4, [128, 7, 1, 1]),
            b.f32(128, 3, 1, 1),
        ))
    }),
    ("mul_mat f32 f16", |b| {
        ggml!(ggml_mul_mat(b.0, b.f32(40, 7, 1, 1), b.f16(40, 3, 1, 1)))
    }),
    ("mul_mat_id q8_0", |b| {
        let experts = b.of(sys::GGML_TYPE_Q8_0, [64, 12, 5, 1]);
        ggml!(ggml_mul_mat_id(
            b.0,
            experts,
            b.f32(64, 1, 9, 1),
            b.i32(2, 9, 1, 1)
        ))
    }),
    ("mul_mat_id q6_K", |b| {
        let experts = b.of(sys::GGML_TYPE_Q6_K, [256, 70, 5, 1]);
        ggml!(ggml_mul_mat_id(
            b.0,
            experts,
            b.f32(256, 2, 40, 1),
            b.i32(2, 40, 1, 1)
        ))
    }),
    ("get_rows q5_1", |b| {
        ggml!(ggml_get_rows(
            b.0,
            b.of(sys::GGML_TYPE_Q5_1, [64, 12, 1, 1]),
            b.i32(5, 1, 1, 1)
        ))
    }),
    ("rope_multi", |b| {
        let mut sections = [8, 4, 4, 0];
        let (x, at) = (b.f32(32, 2, 5, 1), b.i32(20, 1, 1, 1));
        let factors = std::ptr::null_mut();
        let mode = sys::LLAMA_ROPE_TYPE_MROPE;
        ggml!(ggml_rope_multi(
            b.0,
            x,
            at,
            factors,
            32,
            sections.as_mut_ptr(),
            mode,
            0,
            1e4,
            1.0,
            0.0,
            1.0,
            32.0,
            1.0,
        ))
    }),
    ("rope_ext_back", |b| {
        let (x, at) = (b.f32(32, 2, 5, 1), b.i32(5, 1, 1, 1));
        let factors = b.f32(16, 1, 1, 1);
        ggml!(ggml_rope_ext_back(
            b.0, x, at, factors, 16, 2, 0, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0
        ))
    }),
    ("flash q5_0", |b| {
        let keys = || b.of(sys::GGML_TYPE_Q5_0, [64, 40, 2, 2]);
        let mask = b.f16(40, 70, 1, 1);
        ggml!(ggml_flash_attn_ext(
            b.0,
            b.f32(64, 70, 4, 2),
            keys(),
            keys(),
            mask,
            0.1,
            0.0,
            30.0
        ))
    }),
    ("flash decode", |b| {
        let mask = b.f16(600, 1, 1, 1);
        let (k, v) = (b.f16(16, 600, 1, 1), b.f16(24, 600, 1, 1));
        ggml!(ggml_flash_attn_ext(
            b.0,
            b.f32(16, 1, 4, 1),
            k,
            v,
            mask,
            0.1,
            1.0,
            0.0
        ))
    }),
    ("flash tiled", |b| {
        let (k, v) = (b.f32(16, 90, 1, 1), b.f32(24, 90, 1, 1));
        let none = std::ptr::null_mut();
        ggml!(ggml_flash_attn_ext(
            b.0,
            b.f32(16, 70, 4, 1),
            k,
            v,
            none,
            0.1,
            0.0,
            0.0
        ))
    }),
    ("soft_max sinks", |b| {
        let out = ggml!(ggml_soft_max_ext(
            b.0,
            b.f32(40, 5, 4, 2),
            b.f16(40, 5, 1, 2),
            0.1,
            8.0
        ));
        ggml!(ggml_soft_max_add_sinks(out, b.f32(4, 1, 1, 1)));
        out
    }),
    ("ssm_conv", |b| {
        ggml!(ggml_ssm_conv(b.0, b.f32(9, 12, 2, 1), b.f32(4, 12, 1, 1)))
    }),
    ("ssm_scan 1", |b| {
        let (s, x, dt) = (b.f32(16, 1, 12, 4), b.f32(1, 12, 3, 2), b.f32(12, 3, 2, 1));
        let (a, ids) = (b.f32(16, 12, 1, 1), b.i32(2, 1, 1, 1));
        let input = || b.f32(16, 1, 3, 2);
        ggml!(ggml_ssm_scan(b.0, s, x, dt, a, input(), input(), ids, 1))
    }),
    ("ssm_scan 2", |b| {
        let (s, x, dt) = (b.f32(32, 8, 4, 4), b.f32(8, 4, 3, 2), b.f32(4, 3, 2, 1));
        let (a, ids) = (b.f32(1, 4, 1, 1), b.i32(2, 1, 1, 1));
        let input = || b.f32(32, 2, 3, 2);
        ggml!(ggml_ssm_scan(b.0, s, x, dt, a, input(), input(), ids, 3))
    }),
    ("rwkv_6", |b| {
        let h = || b.heads();
        ggml!(ggml_rwkv_wkv6(
            b.0,
            h(),
            h(),
            h(),
            b.f32(64, 2, 1, 1),
            h(),
            b.state()
        ))
    }),
    ("rwkv_7", |b| {
        let h = || b.heads();
        ggml!(ggml_rwkv_wkv7(b.0, h(), h(), h(), h(), h(), h(), b.state()))
    }),
    ("gated_linear", |b| {
        let h = || b.heads();
        ggml!(ggml_gated_linear_attn(b.0, h(), h(), h(), h(), b.state(), 0.5))
    }),
    ("solve_tri", |b| {
        ggml!(ggml_solve_tri(
            b.0,
            b.f32(6, 6, 2, 3),
            b.f32(5, 6, 2, 3),
            true,
            true,
            false
        ))
    }),
    ("gated_delta", |b| {
        let (q, v) = (|| b.f32(16, 2, 5, 3), b.f32(16, 4, 5, 3));
        let (gate, beta, state) = (b.f32(1, 4, 5, 3), b.f32(1, 4, 5, 3), b.f32(16, 16, 4, 3));
        ggml!(ggml_gated_delta_net(b.0, q(), q(), v, gate, beta, state, 1))
    }),
    ("gated_delta kda", |b| {
        let (q, v) = (|| b.f32(16, 4, 5, 3), b.f32(16, 4, 5, 3));
        let (gate, beta, state) = (b.f32(16, 4, 5, 3), b.f32(1, 4, 5, 3), b.f32(16, 16, 4, 3));
        ggml!(ggml_gated_delta_net(b.0, q(), q(), v, gate, beta, state, 3))
    }),
    ("lightning_indexer", |b| {
        let k = b.of(sys::GGML_TYPE_Q8_0, [64, 1, 30, 2]);
        let (q, w, mask) = (b.f32(64, 3, 5, 2), b.f32(3, 5, 1, 2), b.f16(30, 5, 1, 1));
        ggml!(ggml_lightning_indexer(b.0, q, k, w, mask))
    }),
    ("hc_comb", |b| {
        let (mixes, scale, base) = (b.f32(24, 5, 1, 1), b.f32(3, 1, 1, 1), b.f32(24, 1, 1, 1));
        ggml!(ggml_dsv4_hc_comb(b.0, mixes, scale, base, 1e-6, 20))
    }),
    ("hc_pre", |b| {
        ggml!(ggml_dsv4_hc_pre(b.0, b.f32(32, 4, 5, 1), b.f32(4, 5, 1, 1)))
    }),
    ("hc_post", |b| {
        let (x, residual) = (b.f32(32, 5, 1, 1), b.f32(32, 4, 5, 1));
        ggml!(ggml_dsv4_hc_post(
            b.0,
            x,
            residual,
            b.f32(4, 5, 1, 1),
            b.f32(4, 4, 5, 1)
        ))
    }),
    ("xielu", |b| {
        ggml!(ggml_xielu(b.0, b.f32(8, 3, 2, 1), 0.1, 0.2, 0.3, 0.4))
    }),
    ("swiglu_oai", |b| {
        ggml!(ggml_swiglu_oai(
            b.0,
            b.f32(8, 3, 2, 1),
            b.f32(8, 3, 2, 1),
            1.7,
            7.0
        ))
    }),
    ("geglu", |b| ggml!(ggml_geglu(b.0, b.f32(8, 3, 2, 1)))),
    ("set_rows q4_1", |b| {
        let cache = b.of(sys::GGML_TYPE_Q4_1, [64, 12, 2, 1]);
        ggml!(ggml_set_rows(
            b.0,
            cache,
            b.f32(64, 3, 2, 1),
            b.of(sys::GGML_TYPE_I64, [3, 1, 1, 1]),
        ))
    }),
    ("add_id", |b| {
        ggml!(ggml_add_id(
            b.0,
            b.f32(8, 2, 5, 1),
            b.f32(8, 7, 1, 1),
            b.i32(2, 5, 1, 1)
        ))
    }),
    ("cast q8_0", |b| {
        ggml!(ggml_cast(b.0, b.f32(64, 3, 2, 1), sys::GGML_TYPE_Q8_0))
    }),
    ("cast f16", |b| {
        let turned = ggml!(ggml_permute(b.0, b.f32(8, 3, 2, 1), 1, 0, 2, 3));
        ggml!(ggml_cast(b.0, turned, sys::GGML_TYPE_F16))
    }),
    ("cast from q4_0", |b| {
        ggml!(ggml_cast(
            b.0,
            b.of(sys::GGML_TYPE_Q4_0, [64, 3, 2, 1]),
            sys::GGML_TYPE_F32
        ))
    }),
    ("cast i32", |b| {
        ggml!(ggml_cast(b.0, b.f32(8, 3, 2, 1), sys::GGML_TYPE_I32))
    }),
    ("cpy", |b| {
        ggml!(ggml_cpy(b.0, b.f16(8, 6, 1, 1), b.f32(16, 3, 1, 1)))
    }),
    ("cont", |b| {
        let turned = ggml!(ggml_permute(b.0, b.f32(8, 3, 2, 1), 2, 0, 1, 3));
        ggml!(ggml_cont(b.0, turned))
    }),
];

/// All of them by name, each alone in a graph.
pub(super) fn built() -> Vec<(&'static str, Graph)> {
    BUILDS
        .iter()
        .map(|(name, build)| {
            let builder = Builder::new();
            (*name, Captured::alone(build(&builder)))
        })
        .collect()
}
