//! Grammars in GBNF, and JSON schema turned into them.

use super::{Error, ffi};

/// llama.cpp reads nested groups, and chains of rules, by recursion.
const MOST_NESTING: usize = 256;
const MOST_RULES: usize = 4096;

/// Refuses a grammar, or a schema with its patterns, that would overflow llama.cpp's stack.
///
/// # Errors
/// [`Error::Rejected`] with the limit.
pub fn check_nesting(text: &str) -> Result<(), Error> {
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_NESTING {
            return Err(Error::Rejected(format!(
                "groups may be nested {MOST_NESTING} deep at most"
            )));
        }
    }
    if text.matches("::=").count() > MOST_RULES {
        return Err(Error::Rejected(format!(
            "a grammar may have {MOST_RULES} rules at most"
        )));
    }
    Ok(())
}

/// The grammar of all JSON texts that `schema` allows.
///
/// # Errors
/// [`Error::Rejected`] where llama.cpp does not support the schema, saying what.
pub fn json_schema_to_grammar(schema: &serde_json::Value) -> Result<String, Error> {
    let schema = schema.to_string();
    check_nesting(&schema)?;
    let schema = ffi::c_string(&schema)?;
    // SAFETY: `schema` is a C string that outlives the call.
    let (grammar, error) =
        ffi::with_error(|error| unsafe { ffi::mesh_json_schema_to_grammar(schema.as_ptr(), error) });
    ffi::take_string(grammar).ok_or_else(|| Error::Rejected(error.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_overflow_the_stack_is_refused() {
        assert!(check_nesting(&"(".repeat(100_000)).is_err());
        assert!(check_nesting(&"a ::= b\n".repeat(10_000)).is_err());
        assert!(
            json_schema_to_grammar(&serde_json::json!({"type": "string", "pattern": "(".repeat(100_000)}))
                .is_err()
        );
        assert!(check_nesting(&"(a) ".repeat(10_000)).is_ok());
    }
}
