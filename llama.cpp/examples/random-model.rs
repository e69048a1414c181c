//! Writes a model with random weights, for tests and benchmarks.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use llama_engine::gguf::random::{self, Architecture, ByteTokens, Output, Pooling, Spec};

const USAGE: &str = "\
Writes a model with random weights that llama.cpp loads and runs.

Usage: random-model ARCHITECTURE OUT.gguf [OPTION VALUE]…

ARCHITECTURE is llama, qwen2, qwen3, qwen3moe, gemma3, phi3, deepseek2, glm4moe, gpt-oss, mamba,
granitehybrid, qwen35 or bert for a small model, or qwen2-0.5b for one like Qwen2.5-0.5B.

  --seed N           what all weights are derived from [default: 1]
  --template FILE    the chat template, in Jinja [default: ChatML]
  --weights TYPE     f32, f16 or q8_0 [default: f32; qwen2-0.5b: q8_0]
  --output WHICH     own, or tied to the token embeddings [default: own; qwen2-0.5b: tied]
  --layers N         layers [default: 4; gemma3: 6; qwen2-0.5b: 24]
  --heads N          layers after them that guess the token after the next one, 0 or 1; glm4moe,
                     deepseek2 and qwen35 only [default: 0]
  --vocabulary N     tokens [default: 512; qwen2-0.5b: 50000, Qwen2.5-0.5B itself has 151936]
  --context N        the context that it was allegedly trained for [default: 32768; bert: 512]
  --end LOGIT        added to the logits that end generation: -20 for never, 0 for as readily as any
                     other token [default: -20]
  --bytes FORM       what a prompt's bytes outside ASCII decode to: text such as <0xC3>, or the bytes
                     themselves [default: text]
  --pooling WHICH    mean, or rank for a model that ranks documents; bert only [default: mean]
  --parts N,N,…      writes parts OUT-00001-of-0000N.gguf with so many tensors each; `rest` stands for
                     all that remain [default: one file]
";

fn main() -> ExitCode {
    match run(env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("random-model: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<(), String> {
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        print!("{USAGE}");
        return Ok(());
    }
    let [architecture, out, options @ ..] = arguments.as_slice() else {
        return Err(format!("two arguments are needed\n\n{USAGE}"));
    };
    let mut spec = match architecture.as_str() {
        "qwen2-0.5b" => random::qwen2_half_billion(1),
        name => {
            let architecture: Architecture = name
                .parse()
                .map_err(|message| format!("{message}, nor qwen2-0.5b"))?;
            random::small(architecture, 1)
        }
    };
    let mut parts = None;
    for pair in options.chunks(2) {
        let [option, value] = pair else {
            return Err(format!("{} needs a value", pair[0]));
        };
        if option == "--parts" {
            parts = Some(value);
        } else {
            set(&mut spec, option, value).map_err(|message| format!("{option}: {message}"))?;
        }
    }
    match parts {
        None => spec.write(out).map_err(|error| error.to_string()),
        Some(parts) => {
            let total = spec.tensor_count().map_err(|fault| fault.to_string())?;
            let prefix = out.strip_suffix(".gguf").unwrap_or(out);
            let written = spec.write_parts(prefix, &division(parts, total)?);
            for path in written.map_err(|error| error.to_string())? {
                println!("{}", path.display());
            }
            Ok(())
        }
    }
}

fn set(spec: &mut Spec, option: &str, value: &str) -> Result<(), String> {
    match option {
        "--seed" => spec.seed = number(value)?,
        "--template" => {
            let path = PathBuf::from(value);
            let template = fs::read_to_string(path).map_err(|error| error.to_string())?;
            spec.chat_template = Some(template);
        }
        "--weights" => spec.weight_type = value.parse()?,
        "--output" => {
            spec.output = match value {
                "own" => Output::Own,
                "tied" => Output::Tied,
                _ => return Err(format!("`{value}` is neither own nor tied")),
            }
        }
        "--layers" => spec.layers = number(value)?,
        "--heads" => spec.heads = number(value)?,
        "--vocabulary" => spec.vocabulary_size = number(value)?,
        "--context" => spec.context_length = number(value)?,
        "--end" => spec.end_of_generation = number(value)?,
        "--bytes" => {
            spec.byte_tokens = match value {
                "text" => ByteTokens::Text,
                "bytes" => ByteTokens::Bytes,
                _ => return Err(format!("`{value}` is neither text nor bytes")),
            }
        }
        "--pooling" => {
            spec.pooling = match value {
                "mean" => Pooling::Mean,
                "rank" => Pooling::Rank,
                _ => return Err(format!("`{value}` is neither mean nor rank")),
            }
        }
        _ => return Err(format!("there is no such option\n\n{USAGE}")),
    }
    Ok(())
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is not a fitting number"))
}

/// How many tensors each part holds, from text such as `0,10,rest`.
fn division(parts: &str, total: usize) -> Result<Vec<usize>, String> {
    let mut left = total;
    parts
        .split(',')
        .map(|part| {
            let count = if part == "rest" { left } else { number(part)? };
            left = left
                .checked_sub(count)
                .ok_or_else(|| format!("--parts: the model has only {total} tensors"))?;
            Ok(count)
        })
        .collect()
}
