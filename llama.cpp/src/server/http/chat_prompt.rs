//! From a chat request to prompts that the engine runs.

use serde_json::{Value, json};

use super::super::{
    api::{
        ApiError, ErrorCode, Status,
        chat::{ChatCompletionRequest, MessageBuilder, Reasoning, ToolUse},
        constraint::Constraint,
    },
    engine::{
        Engine,
        task::{Generate, Grammar, GrammarSource},
    },
};
use super::{answers::Answers, chat_answer::ChatAnswer, error::Blame, prompt};
use crate::llama::{
    self, ChatParser, ChatPrompt, ChatRequest, GrammarTrigger, Model, Token, ToolChoice,
    json_schema_to_grammar,
};

/// llama.cpp's kinds of a trigger.
const TRIGGER_TOKEN: u8 = 0;
const TRIGGER_WORD: u8 = 1;

/// A request that the engine works on.
pub(super) struct Prepared {
    /// What the engine says.
    pub(super) events: Answers,
    /// What becomes of it, one for each choice.
    pub(super) answers: Vec<ChatAnswer>,
    /// What to name if it fails.
    pub(super) blame: Blame,
}

/// Renders the chat, tokenises it and gives it to the engine, once for each choice.
pub(super) fn prepare(engine: &Engine, request: ChatCompletionRequest) -> Result<Prepared, ApiError> {
    let model = engine.model();
    let tools_active = request.tool_use != ToolUse::None;
    let template = template_request(engine, &request)?;
    let rendered = engine
        .templates()
        .apply(&template)
        .map_err(|error| diagnose(&template, &request, error))?;

    let preserved: Vec<Token> = rendered
        .preserved_tokens
        .iter()
        .filter_map(|text| single_token(model, text))
        .collect();
    let mut sampling = prompt::sampling(model, &request.generation.sampling)?;
    let (grammar, grammar_param) = grammar(model, &rendered, &request, &preserved)?;
    sampling.grammar = grammar;
    sampling.generation_prompt = rendered.generation_prompt.clone();
    sampling.preserved_tokens = preserved.clone();
    sampling.thinking_start = plain_tokens(model, &rendered.thinking_start_tag);
    sampling.thinking_ends = rendered
        .thinking_end_tags
        .iter()
        .map(|tag| plain_tokens(model, tag))
        .filter(|tokens| !tokens.is_empty())
        .collect();

    let mut stop = request.generation.stop.clone();
    stop.extend(rendered.additional_stops.iter().cloned());
    let task = Generate {
        prompt: prompt::tokenize(model, &rendered.prompt, "messages")?,
        max_tokens: request.generation.max_tokens,
        sampling,
        stop,
        logprobs: request.logprobs,
        prompt_logprobs: false,
        visible_tokens: preserved,
    };

    let blame = Blame {
        prompt: "messages",
        grammar: grammar_param,
    };
    let mut events = Vec::new();
    let mut answers = Vec::new();
    for index in 0..request.generation.choices as usize {
        let parser = ChatParser::new(&rendered.format, tools_active).map_err(internal)?;
        let builder = match request.reasoning {
            Reasoning::Split => MessageBuilder::new(),
            Reasoning::Inline => MessageBuilder::inline(
                rendered.thinking_start_tag.clone(),
                rendered.thinking_end_tags.first().cloned().unwrap_or_default(),
            ),
        };
        answers.push(ChatAnswer::new(parser, builder, request.logprobs.is_some()));
        let mut task = task.clone();
        task.sampling.seed = prompt::choice_seed(task.sampling.seed, index);
        events.push(engine.generate(task).map_err(|failure| blame.error(failure))?);
    }
    Ok(Prepared {
        events: Answers::new(events),
        answers,
        blame,
    })
}

fn template_request(engine: &Engine, request: &ChatCompletionRequest) -> Result<ChatRequest, ApiError> {
    let tools = match &request.tools[..] {
        [] => None,
        tools => Some(to_value(tools)?),
    };
    let parallel_tool_calls = request.parallel_tool_calls.unwrap_or_else(|| {
        tools.is_some() && engine.templates().capabilities()["supports_parallel_tool_calls"] == true
    });
    Ok(ChatRequest {
        messages: to_value(&request.messages)?,
        tools,
        tool_choice: match request.tool_use {
            ToolUse::None => ToolChoice::None,
            ToolUse::Auto => ToolChoice::Auto,
            ToolUse::Required => ToolChoice::Required,
        },
        parallel_tool_calls,
        json_schema: match &request.generation.constraint {
            Constraint::Schema { schema, .. } => Some(some_schema(schema)),
            Constraint::None | Constraint::Grammar(_) => None,
        },
        // Given to the sampler as it is: templates have no use for it.
        grammar: None,
        enable_thinking: request.enable_thinking.unwrap_or(true),
        template_kwargs: request.template_kwargs.clone(),
        add_generation_prompt: request.add_generation_prompt,
    })
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

/// The grammar, and the parameter that it comes from.
fn grammar(
    model: &Model,
    rendered: &ChatPrompt,
    request: &ChatCompletionRequest,
    preserved: &[Token],
) -> Result<(Option<Grammar>, Option<&'static str>), ApiError> {
    let plain = |source, gbnf| Grammar {
        source,
        gbnf,
        lazy: false,
        triggers: Vec::new(),
    };
    match &request.generation.constraint {
        Constraint::Grammar(gbnf) => {
            return Ok((Some(plain(GrammarSource::User, gbnf.clone())), Some("grammar")));
        }
        // A template may have no notion of a schema.
        Constraint::Schema { schema, param } if rendered.grammar.is_empty() => {
            let gbnf = schema_grammar(schema, param)?;
            return Ok((Some(plain(GrammarSource::Schema, gbnf)), Some(param)));
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
    let grammar = Grammar {
        source,
        gbnf: rendered.grammar.clone(),
        lazy: rendered.grammar_lazy,
        triggers: rendered
            .grammar_triggers
            .iter()
            .map(|trigger| by_token(model, trigger, preserved))
            .collect(),
    };
    Ok((Some(grammar), Some(param)))
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

fn plain_tokens(model: &Model, text: &str) -> Vec<Token> {
    model.tokenize(text, false, true).unwrap_or_default()
}

fn single_token(model: &Model, text: &str) -> Option<Token> {
    match plain_tokens(model, text)[..] {
        [token] => Some(token),
        _ => None,
    }
}

/// Why a template was not applied: llama.cpp does not say which of its inputs it is about.
fn diagnose(template: &ChatRequest, request: &ChatCompletionRequest, error: llama::Error) -> ApiError {
    if let Constraint::Schema { schema, param } = &request.generation.constraint
        && let Err(error) = schema_grammar(schema, param)
    {
        return error;
    }
    if template.tools.is_some() && request.tool_use != ToolUse::None {
        for (index, tool) in request.tools.iter().enumerate() {
            let param = format!("tools[{index}].function.parameters");
            if let Some(schema) = &tool.function.parameters
                && let Err(error) = schema_grammar(schema, &param)
            {
                return error;
            }
        }
    }
    ApiError::value(
        "messages",
        format!("the model's chat template does not take these messages: {error}"),
    )
}

fn to_value<T: serde::Serialize + ?Sized>(value: &T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| {
        ApiError::new(
            Status::Internal,
            ErrorCode::EngineError,
            format!("the request cannot be rendered: {error}"),
        )
    })
}

fn internal(error: llama::Error) -> ApiError {
    tracing::error!(%error, "no parser for the model's answers");
    ApiError::new(
        Status::Internal,
        ErrorCode::EngineError,
        format!("there is no parser for the model's answers: {error}"),
    )
}
