//! What translating costs: a request of an agent, and an event of its answer's stream.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{anyhow, ensure};
use mesh_llm::dialects::{Answer, Problem, anthropic, ollama, responses};
use serde_json::{Value, json};

use crate::support::arguments::Arguments;
use crate::support::report::{Goal, Metric, Report};

const REQUEST: Metric = Metric::new("a request", "ms");
const EVENT: Metric = Metric::new("a streamed token", "µs");

const GOAL_REQUEST_MS: Goal = Goal::AtMost(0.1);
const GOAL_EVENT_US: Goal = Goal::AtMost(20.0);

/// Messages of the chat so far, and tools: what an agent sends in the middle of its work.
const MESSAGES: usize = 20;
const TOOLS: usize = 10;

/// Events of a stream.
const EVENTS: usize = 1000;

/// Reads a request.
type Read = fn(&[u8]) -> Result<Box<dyn Answer>, Problem>;

/// A dialect: how its request is written, and read.
struct Dialect {
    name: &'static str,
    request: Vec<u8>,
    read: Read,
}

/// Measures each dialect, without HTTP.
///
/// # Errors
/// Where a request is refused.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let dialects = [
        Dialect {
            name: "anthropic",
            request: by_anthropic(),
            read: |body| Ok(anthropic::messages(body)?.answer),
        },
        Dialect {
            name: "ollama",
            request: by_ollama(),
            read: |body| match ollama::chat::asked(body)? {
                ollama::Asked::Text(exchange) => Ok(exchange.answer),
                ollama::Asked::Load(_) => Err(Problem::engine("no chat")),
            },
        },
        Dialect {
            name: "responses",
            request: by_responses(),
            read: |body| {
                let origin = responses::Origin {
                    seed: "0".repeat(32),
                    now: 0,
                };
                let asked = responses::Draft::read(body)?.ask(&responses::Known::default(), origin)?;
                Ok(Box::new(asked.reply))
            },
        },
    ];
    for dialect in dialects {
        one(arguments, report, &dialect)?;
    }
    Ok(())
}

fn one(arguments: &Arguments, report: &mut Report, dialect: &Dialect) -> anyhow::Result<()> {
    let mut case = report.case(format!("translation, {}", dialect.name));
    let (mut requests, mut events) = (Vec::new(), Vec::new());
    for _ in 0..arguments.amount(50, 500) {
        let begin = Instant::now();
        let answer = (dialect.read)(&dialect.request).map_err(|problem| anyhow!(problem.message))?;
        requests.push(begin.elapsed().as_secs_f64() * 1e3);
        events.push(stream(answer)?);
    }
    case.row_with_goal("translated, without HTTP", REQUEST, &requests, GOAL_REQUEST_MS);
    case.row_with_goal("translated, without HTTP", EVENT, &events, GOAL_EVENT_US);
    Ok(())
}

/// Microseconds that an event takes on average.
fn stream(mut answer: Box<dyn Answer>) -> anyhow::Result<f64> {
    let event = |delta: Value| {
        json!({
            "id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": null, "logprobs": null}],
        })
        .to_string()
        .into_bytes()
    };
    let (first, next) = (
        event(json!({"role": "assistant", "content": ""})),
        event(json!({"content": " word"})),
    );
    let mut out = Vec::with_capacity(4096);
    answer.event(&first, &mut out);
    let begin = Instant::now();
    let mut written = 0;
    for _ in 0..EVENTS {
        out.clear();
        answer.event(black_box(&next), &mut out);
        written += out.len();
    }
    let time = begin.elapsed();
    ensure!(written > EVENTS, "nothing was written");
    Ok(time.as_secs_f64() * 1e6 / EVENTS as f64)
}

fn text(number: usize) -> String {
    format!("message {number}: ").repeat(20)
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"path": {"type": "string"}, "line": {"type": "integer"}}, "required": ["path"]})
}

fn chat() -> Vec<Value> {
    (0..MESSAGES)
        .map(|number| json!({"role": if number % 2 == 0 { "user" } else { "assistant" }, "content": text(number)}))
        .chain([json!({"role": "user", "content": "go on"})])
        .collect()
}

fn by_anthropic() -> Vec<u8> {
    let tools: Vec<Value> = (0..TOOLS)
        .map(|number| json!({"name": format!("tool{number}"), "description": "Reads.", "input_schema": schema()}))
        .collect();
    json!({"model": "m", "max_tokens": 1000, "stream": true, "messages": chat(), "tools": tools})
        .to_string()
        .into_bytes()
}

fn functions() -> impl Iterator<Item = Value> {
    (0..TOOLS).map(
        |number| json!({"name": format!("tool{number}"), "description": "Reads.", "parameters": schema()}),
    )
}

fn by_ollama() -> Vec<u8> {
    let tools: Vec<Value> = functions()
        .map(|function| json!({"type": "function", "function": function}))
        .collect();
    json!({"model": "m", "messages": chat(), "tools": tools})
        .to_string()
        .into_bytes()
}

fn by_responses() -> Vec<u8> {
    let tools: Vec<Value> = functions()
        .map(|mut function| {
            function["type"] = "function".into();
            function
        })
        .collect();
    json!({"model": "m", "stream": true, "input": chat(), "tools": tools})
        .to_string()
        .into_bytes()
}
