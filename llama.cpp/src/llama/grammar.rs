//! JSON schema to GBNF.

use super::{Error, ffi};

/// The grammar of all JSON texts that `schema` allows.
///
/// # Errors
/// [`Error::Rejected`] where llama.cpp does not support the schema, saying what.
pub fn json_schema_to_grammar(schema: &serde_json::Value) -> Result<String, Error> {
    let schema = ffi::c_string(&schema.to_string())?;
    // SAFETY: `schema` is a C string that outlives the call.
    let (grammar, error) =
        ffi::with_error(|error| unsafe { ffi::mesh_json_schema_to_grammar(schema.as_ptr(), error) });
    ffi::take_string(grammar).ok_or_else(|| Error::Rejected(error.unwrap_or_default()))
}
