//! A model's details, as Ollama's lists have them.

use llama_engine::gguf;
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
    pub(super) fn new(architecture: &'a str, parameters: u64, file_type: Option<u32>) -> Self {
        Self {
            parent_model: "",
            format: "gguf",
            family: architecture,
            families: [architecture],
            parameter_size: human_count(parameters),
            quantization_level: file_type.and_then(gguf::file_type).unwrap_or("unknown"),
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
}
