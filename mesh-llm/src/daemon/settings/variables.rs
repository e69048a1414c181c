//! The layer of `MESH_LLM_*` variables: each flag's name in capitals.

use super::{Devices, Error, Hidden, Layer, SecretSource, read};
use llama_engine::server::options::RPC_SECRET_VARIABLE;
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
        max_memory: parsed(variable, "MESH_LLM_MAX_MEMORY")?,
        max_vram: parsed(variable, "MESH_LLM_MAX_VRAM")?,
        cache_type_k: parsed(variable, "MESH_LLM_CACHE_TYPE_K")?,
        cache_type_v: parsed(variable, "MESH_LLM_CACHE_TYPE_V")?,
        flash_attn: parsed(variable, "MESH_LLM_FLASH_ATTN")?,
        slot_save: parsed::<NonZeroU32>(variable, "MESH_LLM_SLOT_SAVE")?,
        rpc: parsed(variable, "MESH_LLM_RPC")?,
        rpc_secret: rpc_secret(variable),
        tensor_split: parsed(variable, "MESH_LLM_TENSOR_SPLIT")?,
        draft: parsed(variable, "MESH_LLM_DRAFT")?,
        no_draft: parsed(variable, "MESH_LLM_NO_DRAFT")?,
        draft_max: parsed(variable, "MESH_LLM_DRAFT_MAX")?,
        draft_min_p: parsed(variable, "MESH_LLM_DRAFT_MIN_P")?,
        speculate: parsed(variable, "MESH_LLM_SPECULATE")?,
        draft_windows: parsed(variable, "MESH_LLM_DRAFT_WINDOWS")?,
        join: parsed(variable, "MESH_LLM_JOIN")?,
        client: parsed(variable, "MESH_LLM_CLIENT")?,
        no_mesh: parsed(variable, "MESH_LLM_NO_MESH")?,
        relay: parsed(variable, "MESH_LLM_RELAY")?,
        no_relay: parsed(variable, "MESH_LLM_NO_RELAY")?,
        bind_port: parsed(variable, "MESH_LLM_BIND_PORT")?,
        split: parsed(variable, "MESH_LLM_SPLIT")?,
        max_rtt: parsed(variable, "MESH_LLM_MAX_RTT")?,
        console: parsed(variable, "MESH_LLM_CONSOLE")?,
        no_console: parsed(variable, "MESH_LLM_NO_CONSOLE")?,
        bin_dir: path("MESH_LLM_BIN_DIR"),
        log_format: parsed(variable, "MESH_LLM_LOG_FORMAT")?,
        verbose: parsed(variable, "MESH_LLM_VERBOSE")?,
    })
}

/// The secret of a split, itself or its file. Whatever it is like, no error may show it.
fn rpc_secret(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<SecretSource> {
    let itself = variable(RPC_SECRET_VARIABLE)
        .map(|secret| SecretSource::Variable(Hidden(secret.to_string_lossy().into_owned())));
    itself.or_else(|| variable("MESH_LLM_RPC_SECRET_FILE").map(|path| SecretSource::File(path.into())))
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
    fn the_secret_of_a_split_is_one_variable_or_the_other() {
        let both = |name: &str| match name {
            "MESH_LLM_RPC_SECRET" => Some("itself".into()),
            "MESH_LLM_RPC_SECRET_FILE" => Some("/file".into()),
            _ => None,
        };
        let itself = SecretSource::Variable(Hidden("itself".to_owned()));
        assert_eq!(layer(&both).unwrap().rpc_secret, Some(itself));
        let file = |name: &str| both(name).filter(|_| name.ends_with("FILE"));
        let source = SecretSource::File("/file".into());
        assert_eq!(layer(&file).unwrap().rpc_secret, Some(source));
    }

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
