//! OpenAI Responses: requests to make one, and to come back to it.

use super::forward::Context;
use super::responses_live::{Kept, Live, Shared, Streamed};
use super::translate;
use crate::dialects::responses::{
    self as dialect, Asked, Call, Draft, Item, Origin, Page, Status, Turn, deleted,
};
use crate::dialects::{Exchange, Form, Problem, chat};
use crate::http::{AnswerBody, Upload, json, refuse};
use http_body_util::BodyExt;
use hyper::{Request, Response};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers a request.
pub(super) async fn answer(context: &Context, call: Call, request: Request<Upload>) -> Response<AnswerBody> {
    let query = request.uri().query().map(str::to_owned);
    let done = match call {
        Call::Create => create(context, request.into_body()).await,
        Call::Retrieve(id) => retrieve(context, &id, query.as_deref()),
        Call::Delete(id) => delete(context, &id),
        Call::Cancel(id) => cancel(context, &id),
        Call::InputItems(id) => input_items(context, &id, query.as_deref()),
        Call::WrongMethod(allowed) => Err(Problem::wrong_method(allowed)),
    };
    done.unwrap_or_else(|problem| refuse(&problem, dialect::words))
}

async fn create(context: &Context, body: Upload) -> Result<Response<AnswerBody>, Problem> {
    let draft = Draft::read(&translate::read(body).await?)?;
    let known = context.responses.known(&draft)?;
    let Asked {
        body,
        form,
        store,
        reply,
    } = draft.ask(&known, origin()?)?;
    let reply = Shared::new(reply);
    let responses = store.then(|| context.responses.clone());
    let exchange = Exchange {
        path: chat::PATH,
        body,
        form,
        answer: Box::new(Kept::new(reply.clone(), responses.clone())),
    };
    let response = translate::perform(context, exchange).await?;
    let (Form::Stream, Some(responses)) = (form, responses) else {
        return Ok(response);
    };
    let (parts, body) = response.into_parts();
    let id = reply.turn().response.id().to_owned();
    let live = Live::new(reply, body);
    responses.begin(id, live.clone());
    let body = Streamed::new(live, responses).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

/// What no other response is made of.
fn origin() -> Result<Origin, Problem> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed)
        .map_err(|error| Problem::engine(format!("the system has no random numbers: {error}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Origin {
        seed: format!("{:032x}", u128::from_be_bytes(seed)),
        // A clock that was never set is at its beginning.
        now: now.map_or(0, |since| since.as_secs()),
    })
}

fn retrieve(context: &Context, id: &str, query: Option<&str>) -> Result<Response<AnswerBody>, Problem> {
    dialect::refuse_stream(query)?;
    if let Some(live) = context.responses.in_progress(id) {
        return Ok(json(live.turn().response.json()));
    }
    let turn = found(context, id)?;
    Ok(json(turn.response.json()))
}

fn delete(context: &Context, id: &str) -> Result<Response<AnswerBody>, Problem> {
    if let Some(live) = context.responses.in_progress(id) {
        live.cancel();
    }
    match context.responses.remove(id) {
        true => Ok(json(deleted(id))),
        false => Err(dialect::not_found(id)),
    }
}

fn cancel(context: &Context, id: &str) -> Result<Response<AnswerBody>, Problem> {
    if let Some(live) = context.responses.in_progress(id)
        && let Some(turn) = live.cancel()
    {
        let body = turn.response.json();
        context.responses.keep(turn);
        return Ok(json(body));
    }
    let turn = found(context, id)?;
    match turn.response.status() {
        Status::Cancelled => Ok(json(turn.response.json())),
        _ => Err(dialect::not_cancellable(&turn.response)),
    }
}

fn input_items(context: &Context, id: &str, query: Option<&str>) -> Result<Response<AnswerBody>, Problem> {
    let page = Page::read(query)?;
    if let Some(live) = context.responses.in_progress(id) {
        let turn = live.turn();
        let before = turn.response.previous();
        let history = before.and_then(|id| context.responses.history(id));
        return list(&page, &history.unwrap_or_default(), &turn);
    }
    let mut history = context.responses.history(id).unwrap_or_default();
    let turn = history.pop().ok_or_else(|| dialect::not_found(id))?;
    list(&page, &history, &turn)
}

/// What a response was made of: the conversation that it continues, and its own input.
fn list(page: &Page, history: &[Arc<Turn>], turn: &Turn) -> Result<Response<AnswerBody>, Problem> {
    let items: Vec<&Item> = history
        .iter()
        .flat_map(|turn| turn.items())
        .chain(&turn.input)
        .collect();
    Ok(json(page.of(items)?))
}

fn found(context: &Context, id: &str) -> Result<Arc<Turn>, Problem> {
    context.responses.get(id).ok_or_else(|| dialect::not_found(id))
}
