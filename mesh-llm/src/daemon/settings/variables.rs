//! The layer of `MESH_LLM_*` variables: each flag's name in capitals.

use super::{Devices, Error, Layer, read};
use std::ffi::OsString;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

/// Reads every variable that has a flag.
pub(super) fn layer(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Layer, Error> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    Ok(Layer {
        model: parsed(variable, "MESH_LLM_MODEL")?,
        host: parsed(variable, "MESH_LLM_HOST")?,
        port: parsed(variable, "MESH_LLM_PORT")?,
        api_key: parsed(variable, "MESH_LLM_API_KEY")?,
        api_key_file: path("MESH_LLM_API_KEY_FILE"),
        ctx_size: parsed::<NonZeroU32>(variable, "MESH_LLM_CTX_SIZE")?,
        parallel: parsed::<NonZeroU32>(variable, "MESH_LLM_PARALLEL")?,
        queue: parsed(variable, "MESH_LLM_QUEUE")?,
        device: parsed::<String>(variable, "MESH_LLM_DEVICE")?.map(|words| Devices::from_words(&words)),
        threads: parsed::<NonZeroU32>(variable, "MESH_LLM_THREADS")?,
        gpu_layers: parsed(variable, "MESH_LLM_GPU_LAYERS")?,
        cache_type_k: parsed(variable, "MESH_LLM_CACHE_TYPE_K")?,
        cache_type_v: parsed(variable, "MESH_LLM_CACHE_TYPE_V")?,
        flash_attn: parsed(variable, "MESH_LLM_FLASH_ATTN")?,
        slot_save: parsed::<NonZeroU32>(variable, "MESH_LLM_SLOT_SAVE")?,
        bin_dir: path("MESH_LLM_BIN_DIR"),
        log_format: parsed(variable, "MESH_LLM_LOG_FORMAT")?,
        verbose: parsed(variable, "MESH_LLM_VERBOSE")?,
    })
}

fn parsed<T: FromStr<Err: Display>>(
    variable: &dyn Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<T>, Error> {
    let Some(value) = variable(name) else {
        return Ok(None);
    };
    let result = match value.to_str() {
        Some(text) => read(text),
        None => Err("not valid UTF-8".to_owned()),
    };
    result.map(Some).map_err(|cause| Error::Variable {
        name: name.to_owned(),
        value: value.to_string_lossy().into_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_variable_without_a_meaning_is_named() {
        let variable = |name: &str| (name == "MESH_LLM_PARALLEL").then(|| "0".into());
        let error = layer(&variable).unwrap_err();
        assert_eq!(error.exit(), Exit::CONFIGURATION);
        assert_eq!(
            error.to_string(),
            "the variable MESH_LLM_PARALLEL is `0`: number would be zero for non-zero type; correct it or unset it"
        );
        let variable = |name: &str| (name == "MESH_LLM_LOG_FORMAT").then(|| "xml".into());
        assert!(
            layer(&variable)
                .unwrap_err()
                .to_string()
                .contains("possible: text, json")
        );
    }
}
