//! The grammar that a chat's answer must fit.

use serde_json::{Value, json};

use super::super::{
    api::{
        ApiError,
        chat::{ChatCompletionRequest, ToolUse},
        constraint::Constraint,
    },
    engine::{
        Engine,
        task::{Grammar, GrammarSource},
    },
};
use super::prompt::single_token;
use crate::llama::{
    ChatPrompt, ChatRequest, GrammarTrigger, Model, Token, ToolChoice, json_schema_to_grammar,
};

/// llama.cpp's kinds of a trigger.
const TRIGGER_TOKEN: u8 = 0;
const TRIGGER_WORD: u8 = 1;

/// The grammar, and the parameter that it comes from.
pub(super) fn choose(
    engine: &Engine,
    template: &ChatRequest,
    rendered: &ChatPrompt,
    request: &ChatCompletionRequest,
    preserved: &[Token],
) -> Result<(Option<Grammar>, Option<&'static str>), ApiError> {
    match &request.generation.constraint {
        Constraint::Grammar(gbnf) => {
            return Ok((Some(always(GrammarSource::User, gbnf.clone())), Some("grammar")));
        }
        // A template may have no notion of a schema.
        Constraint::Schema { schema, param } if rendered.grammar.is_empty() => {
            let gbnf = schema_grammar(schema, param)?;
            return Ok((Some(always(GrammarSource::Schema, gbnf)), Some(param)));
        }
        Constraint::Schema { .. } | Constraint::None => {}
    }
    if rendered.grammar.is_empty() {
        return Ok((None, None));
    }
    let (source, param) = match &request.generation.constraint {
        Constraint::Schema { param, .. } => (GrammarSource::Schema, *param),
        Constraint::Grammar(_) | Constraint::None => (GrammarSource::ToolCalls, "tools"),
    };
    if request.tool_use == ToolUse::Required
        && source == GrammarSource::ToolCalls
        && let Some(grammar) = calls_at_once(engine, template, rendered)
    {
        return Ok((Some(grammar), Some(param)));
    }
    let grammar = Grammar {
        source,
        gbnf: rendered.grammar.clone(),
        lazy: rendered.grammar_lazy,
        triggers: rendered
            .grammar_triggers
            .iter()
            .map(|trigger| by_token(engine.model(), trigger, preserved))
            .collect(),
    };
    Ok((Some(grammar), Some(param)))
}

fn always(source: GrammarSource, gbnf: String) -> Grammar {
    Grammar {
        source,
        gbnf,
        lazy: false,
        triggers: Vec::new(),
    }
}

/// A grammar of nothing but tool calls.
///
/// llama.cpp's grammar for required calls allows any words before the first, and a model that would
/// rather talk talks until its tokens are used up. Its lazy grammar, which wakes at a call's first
/// word, has only the calls. A model that is to think first needs the other one.
fn calls_at_once(engine: &Engine, template: &ChatRequest, rendered: &ChatPrompt) -> Option<Grammar> {
    if template.enable_thinking && !rendered.thinking_start_tag.is_empty() {
        return None;
    }
    let template = ChatRequest {
        tool_choice: ToolChoice::Auto,
        ..template.clone()
    };
    let lazy = engine.templates().apply(&template).ok()?;
    let wakes_at_words = !lazy.grammar_triggers.is_empty()
        && lazy
            .grammar_triggers
            .iter()
            .all(|trigger| trigger.kind == TRIGGER_WORD);
    if !lazy.grammar_lazy || !wakes_at_words {
        return None;
    }
    // Unlike llama.cpp's other grammars it does not begin with the generation prompt.
    Some(always(GrammarSource::User, only_calls(&lazy.grammar)?))
}

/// The grammar with a root that is all of the calls: the root of a lazy one can also be a single
/// call without what encloses them.
fn only_calls(gbnf: &str) -> Option<String> {
    const CALLS: &str = "tool-calls";
    let line = gbnf.lines().find(|line| line.starts_with("root ::= "))?;
    let mut names: Vec<&str> = line
        .strip_prefix("root ::= ")?
        .split(" | ")
        .map(str::trim)
        .collect();
    names.sort_unstable();
    match names[..] {
        [_] => Some(gbnf.to_owned()),
        ["tool-call", CALLS] => Some(gbnf.replacen(line, &format!("root ::= {CALLS}"), 1)),
        _ => None,
    }
}

/// llama.cpp takes an empty schema for none; it allows any JSON.
pub(super) fn some_schema(schema: &Value) -> Value {
    match schema.as_object() {
        Some(object) if object.is_empty() => {
            json!({"type": ["object", "array", "string", "number", "boolean", "null"]})
        }
        _ => schema.clone(),
    }
}

/// The grammar of a schema that came in `param`.
pub(super) fn schema_grammar(schema: &Value, param: &str) -> Result<String, ApiError> {
    json_schema_to_grammar(&some_schema(schema))
        .map_err(|error| ApiError::value(param, format!("{param} is not supported: {error}")))
}

/// A word that is a token of its own triggers as that token: as text it would never be seen.
fn by_token(model: &Model, trigger: &GrammarTrigger, preserved: &[Token]) -> GrammarTrigger {
    if trigger.kind == TRIGGER_WORD
        && let Some(token) = single_token(model, &trigger.value)
        && preserved.contains(&token)
    {
        return GrammarTrigger {
            kind: TRIGGER_TOKEN,
            value: trigger.value.clone(),
            token,
        };
    }
    trigger.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_all_of_the_calls() {
        let gbnf = |root: &str| format!("a ::= \"x\"\nroot ::= {root}\ntool-call ::= a\n");
        assert_eq!(only_calls(&gbnf("tool-call")), Some(gbnf("tool-call")));
        assert_eq!(
            only_calls(&gbnf("tool-call | tool-calls")),
            Some(gbnf("tool-calls"))
        );
        assert_eq!(only_calls(&gbnf("tool-call | other")), None);
        assert_eq!(only_calls("a ::= b"), None);
    }

    #[test]
    fn an_empty_schema_is_any_json() {
        assert!(some_schema(&json!({}))["type"].is_array());
        assert_eq!(some_schema(&json!({"type": "object"})), json!({"type": "object"}));
    }
}
