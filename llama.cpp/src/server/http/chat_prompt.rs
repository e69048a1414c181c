//! From a chat request to prompts that the engine runs.

use serde_json::Value;

use super::super::{
    api::{
        ApiError, ErrorCode, Status,
        chat::{ChatCompletionRequest, MessageBuilder, Reasoning, ToolUse},
        constraint::Constraint,
    },
    engine::{Engine, task::Generate},
};
use super::{
    answers::Answers,
    chat_answer::ChatAnswer,
    chat_grammar::{self, schema_grammar, some_schema},
    error::Blame,
    prompt::{self, plain_tokens, single_token},
};
use crate::llama::{self, ChatParser, ChatPrompt, ChatRequest, Token, ToolChoice};

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
    let rendered = render(engine, &template, &request)?;

    let preserved: Vec<Token> = rendered
        .preserved_tokens
        .iter()
        .filter_map(|text| single_token(model, text))
        .collect();
    let mut sampling = prompt::sampling(model, &request.generation.sampling)?;
    let (grammar, grammar_param) = chat_grammar::choose(model, &rendered, &request, &preserved)?;
    sampling.grammar = grammar;
    if request.tool_use == ToolUse::None && !request.tools.is_empty() {
        let calls = ChatRequest {
            tools: Some(to_value(&request.tools)?),
            tool_choice: ToolChoice::Auto,
            ..template
        };
        let banned = chat_grammar::call_tokens(engine, &calls);
        sampling
            .logit_bias
            .extend(banned.into_iter().map(|token| (token, f32::NEG_INFINITY)));
    }
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
        // Names of special tokens in it are text, as they would be in an answer.
        prediction: model
            .tokenize(&request.prediction, false, false)
            .map_err(|error| {
                ApiError::value("prediction", format!("prediction cannot be tokenised: {error}"))
            })?,
    };

    let blame = Blame {
        prompt: "messages",
        grammar: grammar_param,
    };
    let mut events = Vec::new();
    let mut answers = Vec::new();
    for index in 0..request.generation.choices as usize {
        let parser = ChatParser::new(&rendered.format, tools_active).map_err(internal)?;
        let mut builder = MessageBuilder::new();
        if request.reasoning == Reasoning::Inline {
            builder = builder.with_inline_reasoning(
                rendered.thinking_start_tag.clone(),
                rendered.thinking_end_tags.first().cloned().unwrap_or_default(),
            );
        }
        if request.parallel_tool_calls == Some(false) {
            builder = builder.with_one_call();
        }
        let stops = request.generation.stop.clone();
        answers.push(ChatAnswer::new(
            parser,
            builder,
            request.logprobs.is_some(),
            stops,
        ));
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

/// How many tokens the prompt has that [`prepare`] would give to the engine.
pub(super) fn count(engine: &Engine, request: &ChatCompletionRequest) -> Result<usize, ApiError> {
    let rendered = render(engine, &template_request(engine, request)?, request)?;
    Ok(prompt::tokenize(engine.model(), &rendered.prompt, "messages")?.len())
}

fn render(
    engine: &Engine,
    template: &ChatRequest,
    request: &ChatCompletionRequest,
) -> Result<ChatPrompt, ApiError> {
    engine
        .templates()
        .apply(template)
        .map_err(|error| diagnose(template, request, error))
}

fn template_request(engine: &Engine, request: &ChatCompletionRequest) -> Result<ChatRequest, ApiError> {
    // A model that is not to call tools does not see them: it might call one all the same.
    let tools = match request.tool_use {
        ToolUse::None => None,
        ToolUse::Auto | ToolUse::Required => Some(to_value(&request.tools)?),
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
