//! `POST /v1/chat/completions` and `POST /v1/chat/completions/input_tokens`

use axum::{
    extract::State,
    response::{IntoResponse, Json, Response},
};

use super::super::{
    api::{
        ApiError,
        chat::{self, ChatCompletion, InputTokens},
        generation::Delivery,
        model,
        usage::Usage,
    },
    engine::task::Event,
};
use super::{
    App, blocking,
    body::JsonBody,
    chat_answer::{ChatAnswer, ChatWriter},
    chat_prompt::{self, Prepared},
    header,
    stream::{self, Trace},
};

pub(super) async fn completions(
    State(app): State<App>,
    trace: Trace,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let engine = app.engine;
    let header = header("chatcmpl", &engine);
    let (delivery, report, prepared) = blocking(move || {
        let request = chat::parse(&body)?;
        model::check(request.model.as_deref(), engine.name())?;
        let (delivery, report) = (request.generation.delivery, request.prompt_report);
        Ok((delivery, report, chat_prompt::prepare(&engine, request)?))
    })
    .await?;
    match delivery {
        Delivery::Stream(usage) => {
            let writer = ChatWriter::new(header, prepared.answers, usage, report);
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
            let completion = ChatCompletion::new(&header, choices.collect(), usage, timings);
            Ok(Json(completion).into_response())
        }
    }
}

/// Counts the tokens of a request's prompt, which is not run.
pub(super) async fn input_tokens(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Json<InputTokens>, ApiError> {
    blocking(move || {
        let request = chat::parse(&body)?;
        model::check(request.model.as_deref(), app.engine.name())?;
        Ok(Json(InputTokens::new(chat_prompt::count(&app.engine, &request)?)))
    })
    .await
}

/// Waits for all answers.
async fn collect(mut prepared: Prepared) -> Result<(Vec<ChatAnswer>, Usage), ApiError> {
    let answers = &mut prepared.answers;
    while let Some((index, event)) = prepared.events.next().await {
        match event {
            Event::Started(started) => answers[index].started(started),
            Event::Text(piece) => answers[index].text(piece),
            Event::Done(finish) => answers[index].done(&finish),
            Event::Failed(failure) => return Err(prepared.blame.error(failure)),
        }
    }
    let usage = ChatAnswer::usage(answers);
    Ok((prepared.answers, usage))
}
