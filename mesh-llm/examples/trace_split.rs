//! Makes a timeline of a split's log: `just trace-split LOG OUT`. The log is one of
//! `mesh-llm --rpc … -vv --log-format json`; the timeline is in the format of Chrome's trace viewer, which
//! Perfetto opens, too.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};

/// The host's thread that queues steps, beside its queues.
const QUEUEING: u64 = 100;
/// Steps from submission to results.
const STEPS: u64 = 101;

fn main() -> io::Result<()> {
    let mut events = Vec::new();
    for line in io::stdin().lock().lines() {
        let Ok(entry) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        let number = |key: &str| entry[key].as_u64();
        let (Some(step), Some(begin), Some(time)) = (number("step"), number("begin_us"), number("time_us"))
        else {
            continue;
        };
        let mut add = |node: u64, thread: u64, time: u64| {
            events.push(json!({
                "name": format!("step {step}"),
                "ph": "X",
                "ts": begin,
                "dur": time,
                "pid": node,
                "tid": thread,
                "args": { "tokens": entry["tokens"] },
            }));
        };
        match (entry["message"].as_str(), number("node"), number("queue")) {
            (Some("computed"), Some(node), Some(queue)) => add(node, queue, time),
            (Some("step"), ..) => {
                add(0, QUEUEING, number("queued_us").unwrap_or(0));
                add(0, STEPS, time);
            }
            _ => {}
        }
    }
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &json!({ "traceEvents": events }))?;
    writeln!(out)
}
