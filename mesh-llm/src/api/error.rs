//! What the daemon itself has to say against a request.

use crate::dialects::Problem;
use crate::engine::{MORE_PEERS, Serving, State, downloading, waiting_for};
use crate::http::{self, AnswerBody, refuse_with, refused};
use bytes::Bytes;
use hyper::http::Extensions;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

/// The code of an answer that the engine's crash cut off.
const CRASHED: &str = "engine_crashed";

/// The engine broke the exchange off.
pub(super) fn crashed() -> Problem {
    unavailable(
        CRASHED,
        "the engine broke this request off, most likely because it crashed; it is then started again at once, so try again in a moment",
        Some(1),
    )
}

/// Says of a response that another node gave it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromNode;

/// What to say if an answer breaks off, whose response has these extensions.
pub(super) fn broken_off(extensions: &Extensions) -> Problem {
    match extensions.get::<FromNode>() {
        None => crashed(),
        Some(FromNode) => unavailable(
            "node_lost",
            "the machine that answered this request broke off: it, or its engine, is gone, or it cannot be reached any more; try again in a moment",
            Some(1),
        ),
    }
}

/// The request's `Host` is a name that somebody else may have pointed at this machine.
pub(super) fn foreign_name(host: &str) -> Problem {
    http::foreign_name(
        host,
        "start mesh-llm with --host 0.0.0.0 to open it to other names and machines",
    )
}

/// The request shows none of the API's keys.
pub(super) fn no_key() -> Problem {
    refused(
        StatusCode::UNAUTHORIZED,
        "invalid_api_key",
        "this server wants a key that it knows: send it as `Authorization: Bearer KEY`, as clients do with the API key that they are given",
    )
}

/// No machine serves a model of this name.
pub(super) fn no_model(name: &str, known: &[String]) -> Problem {
    let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
    let are = match known.len() {
        1 => "is",
        _ => "are",
    };
    Problem {
        status: StatusCode::NOT_FOUND.as_u16(),
        code: Some("model_not_found".to_owned()),
        ..Problem::invalid(
            Some("model"),
            format!(
                "there is no model {name:?} here; there {are} {}",
                known.join(", ")
            ),
        )
    }
}

/// The nodes that serve the model were asked, and none has answered.
pub(super) fn nobody_answers() -> Problem {
    unavailable(
        "no_node_answers",
        "no node that serves this model answers at the moment: try again in a moment",
        Some(1),
    )
}

/// What only an engine answers, asked of a machine that has none.
pub(super) fn no_engine(method: &Method, path: &str) -> Problem {
    let message = match path {
        "/metrics" | "/props" => format!(
            "{path} is an engine's, and this machine has none, it only uses those of others: ask a machine that serves a model"
        ),
        _ => format!("there is nothing at {method} {path}; the API is at /v1"),
    };
    refused(StatusCode::NOT_FOUND, "unknown_url", message)
}

/// A peer asks for what is not open to peers.
pub(super) fn not_for_peers(method: &Method, path: &str) -> Problem {
    let message = format!(
        "{method} {path} is not open to other nodes, which may only ask a model: ask this machine's own port"
    );
    refused(StatusCode::NOT_FOUND, "unknown_url", message)
}

/// A peer's request names another model than its stream was opened for.
pub(super) fn other_model(named: &str, wanted: &str) -> Problem {
    Problem {
        code: Some("invalid_value".to_owned()),
        ..Problem::invalid(
            Some("model"),
            format!("the request names {named:?}, but its stream was opened for {wanted:?}"),
        )
    }
}

/// A peer asks for a model that this machine serves no more.
pub(super) fn not_served_here(wanted: &str) -> Problem {
    let message = format!("this node does not serve {wanted:?} any more: another may");
    unavailable("model_elsewhere", &message, Some(1))
}

/// A method that makes no sense here.
pub(super) fn not_a_proxy() -> Problem {
    Problem {
        message: "this server is no proxy: CONNECT is not possible".to_owned(),
        ..Problem::wrong_method("GET, HEAD, POST, DELETE")
    }
}

fn unavailable(code: &str, message: &str, retry_after_seconds: Option<u32>) -> Problem {
    Problem {
        status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
        code: Some(code.to_owned()),
        retry_after_seconds,
        ..Problem::engine(message)
    }
}

/// A problem as the last event of one of OpenAI's streams.
pub(super) fn event(problem: &Problem) -> Bytes {
    Bytes::from(format!("data: {}\n\n", problem.openai()))
}

/// Why an engine answers nothing at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotReady {
    status: &'static str,
    percent: Option<u8>,
    /// Boxed, as errors are to be small.
    problem: Box<Problem>,
}

impl NotReady {
    fn new(
        status: &'static str,
        code: &'static str,
        message: &str,
        retry_after_seconds: Option<u32>,
    ) -> Self {
        Self {
            status,
            percent: None,
            problem: Box::new(unavailable(code, message, retry_after_seconds)),
        }
    }

    /// The answer to a request.
    pub(super) fn problem(self) -> Problem {
        *self.problem
    }

    /// The answer to `/health`: the same, and the state in one word.
    pub(super) fn health(&self) -> Response<AnswerBody> {
        let mut body = self.problem.openai();
        body["status"] = json!(self.status);
        if let Some(percent) = self.percent {
            body["percent"] = json!(percent);
        }
        refuse_with(&self.problem, body.to_string().into_bytes())
    }
}

/// A machine without an engine waits for others.
pub(super) fn no_node() -> NotReady {
    NotReady::new(
        "waiting",
        "no_node",
        "no node of the mesh serves a model yet",
        Some(5),
    )
}

/// The engine that answers requests, or why there is none.
pub(super) fn serving(state: &State) -> Result<&Serving, NotReady> {
    Err(match state {
        State::Ready(serving) => return Ok(serving),
        State::Downloading { model, percent, by } => {
            let message = downloading(model, *percent, by);
            let loading = NotReady::new("loading", "model_loading", &message, Some(5));
            NotReady {
                percent: *percent,
                ..loading
            }
        }
        State::Starting => NotReady::new(
            "starting",
            "model_loading",
            "the model is about to be loaded",
            Some(1),
        ),
        State::Loading { percent } => {
            let message = format!("the model is being loaded, {percent} % are done");
            let loading = NotReady::new("loading", "model_loading", &message, Some(1));
            NotReady {
                percent: Some(*percent),
                ..loading
            }
        }
        State::Restarting { cause, .. } => {
            let message = format!("the engine {cause} and is being started again");
            NotReady::new("restarting", "engine_restarting", &message, Some(1))
        }
        State::Lost { message } => {
            let message = format!("{message}; the model is being loaded again");
            NotReady::new("restarting", "node_lost", &message, Some(1))
        }
        State::Waiting { message } => {
            let code = match message.starts_with(MORE_PEERS) {
                true => "more_peers_needed",
                false => "worker_unreachable",
            };
            NotReady::new("waiting", code, &waiting_for(message), Some(5))
        }
        State::Elsewhere { message } => NotReady::new("waiting", "not_served_here", message, Some(5)),
        State::Failed(failure) => NotReady::new("failed", "engine_failed", &failure.message, None),
        State::Stopping => NotReady::new("stopping", "shutting_down", "the server is shutting down", None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Failure;
    use crate::exit::Exit;
    use crate::http::{OPENAI, refuse};
    use http_body_util::BodyExt;
    use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
    use serde_json::Value;
    use std::time::Duration;

    async fn body(response: Response<AnswerBody>) -> Value {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn an_error_is_openai_s_object() {
        let response = refuse(&crashed(), OPENAI);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = body(response).await;
        assert_eq!(body["error"]["code"], "engine_crashed");
        assert_eq!(body["error"]["type"], "server_error");
        assert!(body["error"]["param"].is_null() && body["error"]["message"].is_string());
    }

    #[test]
    fn the_last_event_of_a_stream_is_one_line_of_data() {
        let event = event(&crashed());
        let text = std::str::from_utf8(&event).unwrap();
        let data = text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains('\n'));
        assert!(serde_json::from_str::<Value>(data).unwrap()["error"].is_object());
    }

    #[tokio::test]
    async fn every_state_but_ready_has_its_words() {
        let failure = Failure {
            message: "needs 2 GB".into(),
            last_lines: Vec::new(),
            exit: Exit(71),
        };
        let restarting = State::Restarting {
            crashes: 1,
            cause: "was killed".into(),
            delay: Duration::ZERO,
        };
        for (state, status, code, words) in [
            (
                State::Downloading {
                    model: "Qwen3-8B".into(),
                    percent: Some(12),
                    by: Vec::new(),
                },
                "loading",
                "model_loading",
                "Qwen3-8B is being downloaded, 12 %",
            ),
            (
                State::Downloading {
                    model: "Qwen3-8B".into(),
                    percent: None,
                    by: vec!["anna".into(), "ben".into()],
                },
                "loading",
                "model_loading",
                "Qwen3-8B is being downloaded by anna, ben",
            ),
            (State::Starting, "starting", "model_loading", "about to be loaded"),
            (State::Loading { percent: 37 }, "loading", "model_loading", "37 %"),
            (
                restarting,
                "restarting",
                "engine_restarting",
                "the engine was killed",
            ),
            (
                State::Lost {
                    message: "worker a:1: connection reset".into(),
                },
                "restarting",
                "node_lost",
                "worker a:1: connection reset; the model is being loaded again",
            ),
            (
                State::Waiting {
                    message: "worker a:1: connection refused".into(),
                },
                "waiting",
                "worker_unreachable",
                "Waiting for worker a:1: connection refused",
            ),
            (
                State::Waiting {
                    message: "a:1 is lost: reset".into(),
                },
                "waiting",
                "worker_unreachable",
                "Waiting for the nodes of the split: a:1 is lost",
            ),
            (State::Failed(failure), "failed", "engine_failed", "needs 2 GB"),
            (State::Stopping, "stopping", "shutting_down", "shutting down"),
        ] {
            let response = serving(&state).unwrap_err().health();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            let body = body(response).await;
            assert_eq!(
                (&body["status"], &body["error"]["code"]),
                (&json!(status), &json!(code))
            );
            assert!(
                body["error"]["message"].as_str().unwrap().contains(words),
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn loading_tells_how_far_it_is() {
        let state = State::Loading { percent: 5 };
        let response = serving(&state).unwrap_err().health();
        assert_eq!(body(response).await["percent"], 5);
    }
}
