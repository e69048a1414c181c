//! The tables are ggml's.

use llama_cpp_sys_2 as sys;

use crate::rpc::worker::check::element::Element;

#[test]
fn types_of_elements_are_as_in_ggml() {
    for number in 0..sys::GGML_TYPE_COUNT {
        // SAFETY: both tables have an entry for each number below the count.
        let (general, cpu) = unsafe {
            (
                &*sys::ggml_get_type_traits(number),
                &*sys::ggml_get_type_traits_cpu(number),
            )
        };
        let Some(element) = Element::of(number) else {
            // Removed ones have no size, and one is not in `TensorType`.
            assert!(
                general.type_size == 0 || number == sys::GGML_TYPE_Q2_0,
                "{number}"
            );
            continue;
        };
        assert_eq!(
            element.block,
            u64::try_from(general.blck_size).unwrap(),
            "{number}"
        );
        assert_eq!(element.bytes, general.type_size as u64, "{number}");
        assert_eq!(element.is_quantized(), general.is_quantized, "{number}");
        assert_eq!(element.can_be_read(), general.to_float.is_some(), "{number}");
        assert_eq!(element.can_be_made(), cpu.from_float.is_some(), "{number}");
        assert_eq!(element.can_be_multiplied(), cpu.vec_dot.is_some(), "{number}");
    }
}
