//! Ollama's endpoints: what the dialect asks of the engine, and how its answers get to the client.

use super::answer::AnswerBody;
use super::cors;
use super::forward::Context;
use super::translate::{get, json, perform, read, refuse};
use super::upload::Upload;
use crate::dialects::Problem;
use crate::dialects::ollama::models::{self, MODELS_PATH, Memory, PROPS_PATH};
use crate::dialects::ollama::{self, Asked, Endpoint};
use crate::engine::State;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
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
    let (parts, body) = request.into_parts();
    refuse_foreign_page(&parts.headers)?;
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
        Endpoint::WrongMethod => Err(ollama::wrong_method(&parts.method, parts.uri.path())),
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

/// Refuses what a page of another site may send without asking first: a body that is not declared to be
/// JSON, as Ollama's clients send it, too. The page could not read the answer, but it would be computed.
fn refuse_foreign_page(headers: &HeaderMap) -> Result<(), Problem> {
    let is_json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|declared| declared.as_bytes().starts_with(b"application/json"));
    match headers.get(ORIGIN) {
        Some(origin) if !is_json && !cors::is_local(origin) => Err(Problem {
            status: 403,
            ..Problem::invalid(
                None,
                "pages of other sites may not use this server; if this is an application's, send the \
                 Content-Type application/json",
            )
        }),
        _ => Ok(()),
    }
}

/// Says that there is a server, whatever its engine does.
fn alive() -> Response<AnswerBody> {
    let mut response = json(ollama::ALIVE.as_bytes().to_vec());
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_pages_must_declare_json() {
        let refused = |origin: Option<&'static str>, declared: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ORIGIN, origin), (CONTENT_TYPE, declared)] {
                headers.extend(value.map(|value| (name, HeaderValue::from_static(value))));
            }
            refuse_foreign_page(&headers).is_err()
        };
        let foreign = Some("https://example.com");
        assert!(refused(foreign, None) && refused(foreign, Some("text/plain")));
        // The browser asks before it sends this, and is told no.
        assert!(!refused(foreign, Some("application/json")));
        assert!(!refused(Some("http://localhost:3000"), Some("text/plain")));
        assert!(!refused(None, Some("application/x-www-form-urlencoded")));
    }
}
