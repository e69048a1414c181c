//! Ollama's endpoints: what the dialect asks of the engine, and how its answers get to the client.

use super::forward::Context;
use super::translate::{get, perform, read};
use crate::dialects::Problem;
use crate::dialects::ollama::models::{self, MODELS_PATH, Memory, PROPS_PATH};
use crate::dialects::ollama::{self, Asked, Endpoint};
use crate::engine::State;
use crate::http::{AnswerBody, Upload, json, refuse};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};

/// Answers a request to an endpoint.
pub(super) async fn answer(
    context: &Context,
    endpoint: Endpoint,
    request: Request<Upload>,
) -> Response<AnswerBody> {
    match answer_or_refuse(context, endpoint, request).await {
        Ok(response) => response,
        Err(problem) => refuse(&problem, ollama::words),
    }
}

async fn answer_or_refuse(
    context: &Context,
    endpoint: Endpoint,
    request: Request<Upload>,
) -> Result<Response<AnswerBody>, Problem> {
    let body = request.into_body();
    match endpoint {
        Endpoint::Alive => Ok(alive()),
        Endpoint::Version => Ok(json(ollama::version())),
        Endpoint::Tags => Ok(json(models::tags(&get(context, MODELS_PATH).await?)?)),
        Endpoint::Show => {
            let name = models::shown(&read(body).await?)?;
            let (list, props) = about(context).await?;
            Ok(json(models::show(&name, &list, &props)?))
        }
        Endpoint::Running => {
            let (list, props) = about(context).await?;
            Ok(json(models::running(&list, &props, memory(context))?))
        }
        Endpoint::Chat => text(context, ollama::chat::asked(&read(body).await?)?).await,
        Endpoint::Generate => text(context, ollama::generate::asked(&read(body).await?)?).await,
        Endpoint::Embed => perform(context, ollama::embed::exchange(&read(body).await?)?).await,
        Endpoint::Embeddings => perform(context, ollama::embed::older_exchange(&read(body).await?)?).await,
        Endpoint::Manage => Err(ollama::managed()),
        Endpoint::WrongMethod(allowed) => Err(Problem::wrong_method(allowed)),
    }
}

async fn text(context: &Context, asked: Asked) -> Result<Response<AnswerBody>, Problem> {
    match asked {
        Asked::Text(exchange) => perform(context, exchange).await,
        Asked::Load(load) => Ok(json(load.answer(&get(context, MODELS_PATH).await?)?)),
    }
}

async fn about(context: &Context) -> Result<(bytes::Bytes, bytes::Bytes), Problem> {
    Ok((get(context, MODELS_PATH).await?, get(context, PROPS_PATH).await?))
}

/// What the engine takes; nothing while there is none.
fn memory(context: &Context) -> Memory {
    match &*context.engine.borrow() {
        State::Ready(serving) => Memory {
            bytes: serving.ready.model_bytes + serving.ready.context_bytes,
            gpu_layers: serving.ready.gpu_layers,
        },
        _ => Memory {
            bytes: 0,
            gpu_layers: 0,
        },
    }
}

/// Says that there is a server, whatever its engine does.
fn alive() -> Response<AnswerBody> {
    let mut response = json(ollama::ALIVE.as_bytes().to_vec());
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
