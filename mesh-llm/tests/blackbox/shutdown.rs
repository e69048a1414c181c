//! Ending when told to.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::crashes::endless;
use crate::harness::{DEADLINE, Daemon, Kind, Signal, Start, eventually, model};

fn endless_model() -> Daemon {
    Start::model(model(Kind::Endless)).flag("--parallel", "2").ready()
}

/// The daemon has ended well and nothing of it is left.
fn ended_well(mut daemon: Daemon, engine: crate::harness::Known) {
    let code = daemon.process.end(DEADLINE).code();
    assert_eq!(code, Some(0), "{:#?}", daemon.process.err.so_far());
    assert!(!engine.runs());
    assert_eq!(daemon.run_folders().len(), 0, "no folder, no socket");
    assert!(!daemon.connects());
}

#[test]
fn a_daemon_at_rest_ends_at_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = Start::model("tiny").ready();
        let engine = daemon.engine();
        daemon.process.signal(signal);
        ended_well(daemon, engine);
    }
}

#[test]
fn a_running_stream_is_finished_and_no_other_begun() {
    const TOKENS: usize = 1000;
    let daemon = endless_model();
    let engine = daemon.engine();
    let request = json!({"prompt": "Once", "max_tokens": TOKENS, "stream_options": {"include_usage": true}});
    let mut stream = daemon.stream("/v1/completions", &request);
    stream.next_text();
    daemon.process.signal(Signal::TERM);
    eventually("no connection is accepted any more", DEADLINE, || {
        (!daemon.connects()).then_some(())
    });
    assert!(engine.runs(), "the stream still runs");
    let outcome = stream.outcome();
    assert_eq!((outcome.error.as_ref(), outcome.broken.as_ref()), (None, None));
    assert!(outcome.done);
    assert_eq!(outcome.finish_reason.as_deref(), Some("length"));
    assert_eq!(outcome.usage().unwrap()["completion_tokens"], TOKENS);
    ended_well(daemon, engine);
}

#[test]
fn a_request_that_waits_for_a_slot_is_finished_too() {
    let daemon = Start::model(model(Kind::Endless)).flag("--parallel", "1").ready();
    let engine = daemon.engine();
    let request = json!({"prompt": "Once", "max_tokens": 1500});
    std::thread::scope(|scope| {
        let both: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| daemon.stream("/v1/completions", &request).outcome()))
            .collect();
        daemon.until_metric("requests_waiting", 1.0);
        daemon.process.signal(Signal::TERM);
        for stream in both {
            let outcome = stream.join().unwrap();
            assert!(
                outcome.done && outcome.error.is_none(),
                "{:?} {:?}",
                outcome.error,
                outcome.broken
            );
        }
    });
    ended_well(daemon, engine);
}

#[test]
fn a_second_signal_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let daemon = endless_model();
        let engine = daemon.engine();
        let mut stream = daemon.stream("/v1/completions", &endless("Once"));
        stream.next_text();
        let before = Instant::now();
        daemon.process.signal(Signal::TERM);
        daemon.process.err.line("ends at once", DEADLINE);
        daemon.process.signal(second);
        let outcome = stream.outcome();
        assert!(!outcome.done, "the answer was cut and does not look complete");
        ended_well(daemon, engine);
        assert!(
            before.elapsed() < Duration::from_secs(25),
            "it waited for the running answer"
        );
    }
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let daemon = Start::model("tiny").ready();
    let engine = daemon.engine();
    let address = daemon.base.trim_start_matches("http://").to_owned();
    let _silent = std::net::TcpStream::connect(&address).unwrap();
    let mut kept = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(&mut kept, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut begin = [0; 15];
    std::io::Read::read_exact(&mut kept, &mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    let before = Instant::now();
    daemon.process.signal(Signal::TERM);
    ended_well(daemon, engine);
    assert!(
        before.elapsed() < Duration::from_secs(25),
        "it waited for a connection that says nothing"
    );
}
