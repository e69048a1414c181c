//! A model's details, as Ollama's lists have them.

use serde::Serialize;

/// Ollama's details of a model.
#[derive(Debug, Serialize)]
pub(super) struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: [&'a str; 1],
    parameter_size: String,
    quantization_level: &'static str,
}

impl<'a> Details<'a> {
    pub(super) fn new(architecture: &'a str, parameters: u64, file_type: u32) -> Self {
        Self {
            parent_model: "",
            format: "gguf",
            family: architecture,
            families: [architecture],
            parameter_size: human_count(parameters),
            quantization_level: quantization(file_type),
        }
    }
}

/// A number of parameters as people say it: `8.2B`, `494.03M`, as Ollama does.
fn human_count(count: u64) -> String {
    let scaled = |unit: f64| count as f64 / unit;
    match count {
        1_000_000_000.. => format!("{:.1}B", scaled(1e9)),
        1_000_000.. => format!("{:.2}M", scaled(1e6)),
        1_000.. => format!("{:.2}K", scaled(1e3)),
        _ => count.to_string(),
    }
}

/// llama.cpp's `llama_ftype` by name: `include/llama.h`.
fn quantization(file_type: u32) -> &'static str {
    match file_type {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_as_people_do() {
        for (count, text) in [
            (999, "999"),
            (2_755_008, "2.76M"),
            (494_032_768, "494.03M"),
            (8_190_735_360, "8.2B"),
            (671_026_419_200, "671.0B"),
        ] {
            assert_eq!(human_count(count), text);
        }
    }

    #[test]
    fn quantizations_have_llama_cpp_s_numbers() {
        assert_eq!(quantization(15), "Q4_K_M");
        assert_eq!(quantization(7), "Q8_0");
        assert_eq!(quantization(4), "unknown");
    }
}
