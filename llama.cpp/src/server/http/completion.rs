//! `POST /v1/completions`

use axum::{
    extract::State,
    response::{IntoResponse, Json, Response},
};
use tokio::sync::mpsc;

use super::super::{
    api::{
        ApiError,
        completion::{self, Completion, CompletionRequest, Echo},
        constraint::Constraint,
        generation::Delivery,
        input::Input,
        model,
        usage::Usage,
    },
    engine::{
        Engine,
        task::{
            Event, Events, Finish, FinishReason, Generate, Grammar, GrammarSource, Speculated, Started,
            Timings,
        },
    },
};
use super::{
    App,
    answers::Answers,
    blocking,
    body::JsonBody,
    chat_grammar::schema_grammar,
    completion_answer::{CompletionAnswer, CompletionWriter, Echoed},
    error::Blame,
    header, prompt,
    stream::{self, Trace},
};
use crate::llama::{Model, Token};

pub(super) async fn completions(
    State(app): State<App>,
    trace: Trace,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let engine = app.engine;
    let header = header("cmpl", &engine);
    let (delivery, prepared) = blocking(move || {
        let request = completion::parse(&body)?;
        model::check(request.model.as_deref(), engine.name())?;
        Ok((request.generation.delivery, prepare(&engine, request)?))
    })
    .await?;
    match delivery {
        Delivery::Stream(usage) => {
            let writer = CompletionWriter::new(header, prepared.answers, usage);
            stream::respond(prepared.events, prepared.blame, trace, writer).await
        }
        Delivery::Whole => {
            let (answers, usage) = collect(prepared).await?;
            let timings = match &answers[..] {
                [only] => only.timings(),
                _ => None,
            };
            let choices = answers
                .into_iter()
                .enumerate()
                .map(|(index, answer)| answer.choice(index));
            let completion = Completion::new(&header, choices.collect(), usage, timings);
            Ok(Json(completion).into_response())
        }
    }
}

/// A request that the engine works on.
struct Prepared {
    events: Answers,
    answers: Vec<CompletionAnswer>,
    blame: Blame,
}

/// Waits for all answers.
async fn collect(mut prepared: Prepared) -> Result<(Vec<CompletionAnswer>, Usage), ApiError> {
    let answers = &mut prepared.answers;
    while let Some((index, event)) = prepared.events.next().await {
        match event {
            Event::Started(started) => answers[index].started(started),
            Event::Text(piece) => answers[index].text(piece),
            Event::Done(finish) => answers[index].done(finish),
            Event::Failed(failure) => return Err(prepared.blame.error(failure)),
        }
    }
    let usage = CompletionAnswer::usage(answers);
    Ok((prepared.answers, usage))
}

/// Tokenises the prompts and gives them to the engine, once for each choice.
fn prepare(engine: &Engine, request: CompletionRequest) -> Result<Prepared, ApiError> {
    let model = engine.model();
    let choices = request.generation.choices as usize;
    let mut sampling = prompt::sampling(model, &request.generation.sampling)?;
    let (source, param, gbnf) = match &request.generation.constraint {
        Constraint::None => (GrammarSource::User, None, None),
        Constraint::Grammar(gbnf) => (GrammarSource::User, Some("grammar"), Some(gbnf.clone())),
        Constraint::Schema { schema, param } => (
            GrammarSource::Schema,
            Some(*param),
            Some(schema_grammar(schema, param)?),
        ),
    };
    sampling.grammar = gbnf.map(|gbnf| Grammar {
        source,
        gbnf,
        lazy: false,
        triggers: Vec::new(),
    });
    let blame = Blame {
        prompt: "prompt",
        grammar: param,
    };
    let only_prompt = request.generation.max_tokens == Some(0);
    let prompt_logprobs = request.echo == Echo::Prompt && request.logprobs.is_some();

    let mut events = Vec::new();
    let mut answers = Vec::new();
    let several = request.prompts.len() > 1;
    for (number, input) in request.prompts.into_iter().enumerate() {
        let param = if several {
            format!("prompt[{number}]")
        } else {
            "prompt".to_owned()
        };
        let (tokens, echoed) = prompt_tokens(model, input, request.suffix.as_deref(), &param)?;
        for index in 0..choices {
            let echo = match request.echo {
                Echo::No => Echoed::Nothing,
                Echo::Prompt if prompt_logprobs => Echoed::WithLogprobs {
                    text: echoed.clone(),
                    first: model.piece(tokens[0], false),
                },
                Echo::Prompt => Echoed::Text(echoed.clone()),
            };
            answers.push(CompletionAnswer::new(
                echo,
                index == 0,
                request.logprobs.is_some(),
            ));
            if only_prompt && !prompt_logprobs {
                events.push(nothing(tokens.len()));
                continue;
            }
            let mut sampling = sampling.clone();
            sampling.seed = prompt::choice_seed(sampling.seed, index);
            let task = Generate {
                prompt: tokens.clone(),
                max_tokens: request.generation.max_tokens,
                sampling,
                stop: request.generation.stop.clone(),
                logprobs: request.logprobs,
                prompt_logprobs,
                visible_tokens: Vec::new(),
                prediction: Vec::new(),
            };
            events.push(engine.generate(task).map_err(|failure| blame.error(failure))?);
        }
    }
    Ok(Prepared {
        events: Answers::new(events),
        answers,
        blame,
    })
}

/// A prompt's tokens, and what `echo` repeats of it.
fn prompt_tokens(
    model: &Model,
    input: Input,
    suffix: Option<&str>,
    param: &str,
) -> Result<(Vec<Token>, String), ApiError> {
    let Some(suffix) = suffix else {
        let echoed = match &input {
            Input::Text(text) => Some(text.clone()),
            Input::Tokens(_) => None,
        };
        let tokens = prompt::tokens(model, input, param)?;
        let echoed = echoed.unwrap_or_else(|| model.detokenize(&tokens, false));
        return Ok((tokens, echoed));
    };
    let infill = model.infill().ok_or_else(|| {
        ApiError::unsupported(
            "suffix",
            "suffix is not supported: the model cannot fill in text; leave it out",
        )
    })?;
    let plain = |text: &str, param: &str| {
        model
            .tokenize(text, false, false)
            .map_err(|error| ApiError::value(param, format!("{param} cannot be tokenised: {error}")))
    };
    let (before, echoed) = match input {
        Input::Text(text) => (plain(&text, param)?, text),
        Input::Tokens(tokens) => {
            prompt::check(model, &tokens, param)?;
            let text = model.detokenize(&tokens, false);
            (tokens, text)
        }
    };
    let mut tokens = Vec::with_capacity(before.len() + suffix.len() / 3 + 4);
    tokens.extend(model.bos().filter(|_| model.add_bos()));
    tokens.push(infill.prefix);
    tokens.extend(before);
    tokens.push(infill.suffix);
    tokens.extend(plain(suffix, "suffix")?);
    tokens.push(infill.middle);
    Ok((tokens, echoed))
}

/// An answer without a token, which needs no engine.
fn nothing(prompt_tokens: usize) -> Events {
    let (sender, events) = mpsc::unbounded_channel();
    let started = Started {
        prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
        cached_tokens: 0,
    };
    let finish = Finish {
        reason: FinishReason::Length,
        completion_tokens: 0,
        prompt_logprobs: Vec::new(),
        timings: Timings::default(),
        speculated: Speculated::default(),
    };
    for event in [Event::Started(started), Event::Done(finish)] {
        // The receiver is right here.
        let _ = sender.send(event);
    }
    events
}
