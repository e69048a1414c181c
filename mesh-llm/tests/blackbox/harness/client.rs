//! A client of the API.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{HeaderMap, Request, Response};

use super::{Stream, eventually, wait::DEADLINE};

/// Talks to one server.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    /// Where it is, without a path.
    pub base: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error} in the {} answer: {}", self.status, self.text))
    }

    /// The body of an answer that must be a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    /// The error object of an answer that must be an error with this status.
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        let error = self.json()["error"].clone();
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{}",
            self.text
        );
        error
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    /// A client for the server at `base`.
    pub fn new(base: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            // Each request has a connection of its own, so that none meets one that a test cut.
            .max_idle_connections(0)
            .timeout_global(Some(DEADLINE))
            .build()
            .new_agent();
        Self {
            agent,
            base: base.to_owned(),
        }
    }

    /// Sends a request; an error where there is no answer at all.
    pub fn try_send(&self, request: Request<impl ureq::AsSendBody>) -> Result<Answer, ureq::Error> {
        let (parts, body) = self.agent.run(request)?.into_parts();
        let mut text = String::new();
        body.into_reader().read_to_string(&mut text)?;
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text,
        })
    }

    /// Gets a path.
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Gets a path; an error where there is no answer at all.
    pub fn try_get(&self, path: &str) -> Result<Answer, ureq::Error> {
        self.try_send(Request::get(format!("{}{path}", self.base)).body(()).unwrap())
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Posts JSON; an error where there is no (whole) answer.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        self.try_send(self.json(path, body))
    }

    fn json(&self, path: &str, body: &Value) -> Request<String> {
        let request =
            Request::post(format!("{}{path}", self.base)).header("content-type", "application/json");
        request.body(body.to_string()).unwrap()
    }

    /// Posts JSON and follows the answer's events; the whole answer where it is no stream.
    pub fn try_stream(&self, path: &str, body: &Value) -> Result<Stream, Box<Answer>> {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let response = self
            .agent
            .run(self.json(path, &body))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        Self::events(response)
    }

    fn events(response: Response<ureq::Body>) -> Result<Stream, Box<Answer>> {
        let (parts, body) = response.into_parts();
        let kind = parts
            .headers
            .get("content-type")
            .map_or("", |value| value.to_str().unwrap());
        if kind.starts_with("text/event-stream") {
            return Ok(Stream::new(body.into_reader()));
        }
        let mut text = String::new();
        body.into_reader().read_to_string(&mut text).unwrap();
        Err(Box::new(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text,
        }))
    }

    /// Posts JSON and follows the answer's events.
    pub fn stream(&self, path: &str, body: &Value) -> Stream {
        self.try_stream(path, body)
            .unwrap_or_else(|answer| panic!("{}: {}", answer.status, answer.text))
    }

    /// Whether a connection can be made.
    pub fn connects(&self) -> bool {
        let address = self.base.trim_start_matches("http://");
        std::net::TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(10)).is_ok()
    }

    /// A metric's value, by its name without the prefix: `slots_busy`.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text);
        let begin = format!("mesh_llm_{name}{{");
        let line = answer.text.lines().find(|line| line.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("no metric {name} in:\n{}", answer.text));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub fn until_metric(&self, name: &str, value: f64) {
        eventually(&format!("{name} is {value}"), DEADLINE, || {
            (self.metric(name) == value).then_some(())
        });
    }

    /// The tokens of a text.
    pub fn tokenize(&self, text: &str) -> Vec<i32> {
        let answer = self.post("/tokenize", &json!({"content": text})).ok();
        serde_json::from_value(answer["tokens"].clone()).unwrap()
    }
}
