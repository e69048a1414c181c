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
use crate::llama::{ChatPrompt, ChatRequest, GrammarTrigger, Model, Token, json_schema_to_grammar};

/// llama.cpp's kinds of a trigger.
const TRIGGER_TOKEN: u8 = 0;
const TRIGGER_WORD: u8 = 1;

/// The grammar, and the parameter that it comes from.
pub(super) fn choose(
    model: &Model,
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
    // A template that switches thinking off may do so by beginning the answer with an empty thought.
    let tag = rendered.thinking_start_tag.as_str();
    let may_think = request.enable_thinking != Some(false) || rendered.generation_prompt.contains(tag);
    let thought = (!tag.is_empty() && may_think).then_some(tag);
    let gbnf = match request.tool_use {
        ToolUse::Required => without_words(&rendered.grammar, thought),
        ToolUse::None | ToolUse::Auto => rendered.grammar.clone(),
    };
    let grammar = Grammar {
        source,
        gbnf,
        lazy: rendered.grammar_lazy,
        triggers: rendered
            .grammar_triggers
            .iter()
            .map(|trigger| by_token(model, trigger, preserved))
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

/// A grammar for required calls, less the words that llama.cpp allows before the first call: a model
/// that would rather talk would talk until its tokens are used up. It may still think, if there is a
/// tag that begins a thought.
///
/// Words are parts of the root like `until-7?` and `("<say>" until-7 "</say>")?`, and can be left out.
fn without_words(gbnf: &str, thought: Option<&str>) -> String {
    const ROOT: &str = "root ::= ";
    let is_words = |part: &str| {
        let optional_group = part.starts_with('(') && part.ends_with(")?") && part.contains(" until-");
        let is_thought = thought.is_some_and(|tag| part.contains(tag));
        is_until(part) || (optional_group && !is_thought)
    };
    let line = |line: &str| match line.strip_prefix(ROOT) {
        None => line.to_owned(),
        Some(root) => {
            let kept: Vec<&str> = parts(root).into_iter().filter(|part| !is_words(part)).collect();
            format!("{ROOT}{}", kept.join(" "))
        }
    };
    gbnf.lines().map(|text| line(text) + "\n").collect()
}

/// Whether a part is `until-7` or `until-7?`: any text up to what ends it, or none.
fn is_until(part: &str) -> bool {
    let number = part.strip_prefix("until-").map(|rest| rest.trim_end_matches('?'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The parts of a rule: what spaces divide that are in neither quotes, brackets nor parentheses.
fn parts(rule: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    let mut closing = None;
    let mut bytes = rule.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (closing, byte) {
            (Some(_), b'\\') => {
                bytes.next();
            }
            (Some(end), _) if byte == end => closing = None,
            (Some(_), _) => {}
            (None, b'"') => closing = Some(b'"'),
            (None, b'[') => closing = Some(b']'),
            (None, b'(') => depth += 1,
            (None, b')') => depth = depth.saturating_sub(1),
            (None, b' ') if depth == 0 => {
                parts.push(&rule[begin..at]);
                begin = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(&rule[begin..]);
    parts
}

/// Tokens that begin a tool call in this chat, where they are tokens of their own.
pub(super) fn call_tokens(engine: &Engine, template: &ChatRequest) -> Vec<Token> {
    let Ok(rendered) = engine.templates().apply(template) else {
        return Vec::new();
    };
    rendered
        .grammar_triggers
        .iter()
        .filter(|trigger| trigger.kind == TRIGGER_WORD)
        .filter_map(|trigger| single_token(engine.model(), trigger.value.trim()))
        .collect()
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
    fn words_before_a_required_call_are_left_out_and_thoughts_stay() {
        let gbnf = |root: &str| format!("a ::= until-1 b\nroot ::= {root}\nuntil-1 ::= | [^<]\n");
        for (root, expected) in [
            (
                r#""<a>\n" space until-169? tool-calls"#,
                r#""<a>\n" space tool-calls"#,
            ),
            (
                r#""<a>" ("<t>" until-3 "</t>"?)? until-137 tool-calls"#,
                r#""<a>" ("<t>" until-3 "</t>"?)? tool-calls"#,
            ),
            (
                r#"("<t>" until-4 "</t>")? ("<r>" until-2 "</r>")? call"#,
                r#"("<t>" until-4 "</t>")? call"#,
            ),
            (
                r#"" until-1 (\" " [" ] until-2 call"#,
                r#"" until-1 (\" " [" ] call"#,
            ),
            ("(start any)* start call", "(start any)* start call"),
            ("until-x until- call", "until-x until- call"),
        ] {
            assert_eq!(without_words(&gbnf(root), Some("<t>")), gbnf(expected));
        }
        let root = r#""<a>" ("<t>" until-3 "</t>")? call"#;
        assert_eq!(without_words(&gbnf(root), None), gbnf(r#""<a>" call"#));
    }

    #[test]
    fn an_empty_schema_is_any_json() {
        assert!(some_schema(&json!({}))["type"].is_array());
        assert_eq!(some_schema(&json!({"type": "object"})), json!({"type": "object"}));
    }
}
