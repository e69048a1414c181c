//! Ollama's endpoints: what the dialect asks of the engine, and how its answers get to the client.

use super::forward::Context;
use super::model_list;
use super::translate::{get, perform, read};
use crate::dialects::Problem;
use crate::dialects::ollama::models::{self, Here, Memory, PROPS_PATH};
use crate::dialects::ollama::{self, Asked, Endpoint};
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
        Endpoint::Tags => Ok(json(models::tags(&model_list::all(context).await?)?)),
        Endpoint::Show => {
            let name = models::shown(&read(body).await?)?;
            let list = model_list::all(context).await?;
            let here = here(context).await?;
            Ok(json(models::show(&name, &list, here.as_ref())?))
        }
        Endpoint::Running => {
            let list = model_list::all(context).await?;
            let here = here(context).await?;
            Ok(json(models::running(&list, here.as_ref())?))
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
        Asked::Load(load) => Ok(json(load.answer(&model_list::all(context).await?)?)),
    }
}

/// What the own engine says of its model; nothing while there is none.
async fn here(context: &Context) -> Result<Option<Here>, Problem> {
    let Ok(serving) = context.own.serving() else {
        return Ok(None);
    };
    Ok(Some(Here {
        props: get(context, PROPS_PATH).await?,
        memory: Memory {
            bytes: serving.ready.model_bytes + serving.ready.context_bytes,
            gpu_layers: serving.ready.gpu_layers,
        },
        model: serving.model,
    }))
}

/// Says that there is a server, whatever its engine does.
fn alive() -> Response<AnswerBody> {
    let mut response = json(ollama::ALIVE.as_bytes().to_vec());
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
