//! Disks that are full or read-only.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{
    DEADLINE, Daemon, Kind, Namespace, Process, Signal, Start, model, namespaces_available,
};
use crate::starting::chat;

/// An empty, private state directory to mount something at.
fn with_home(start: Start) -> Start {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(start.home_path())
        .unwrap();
    start
}

fn refused(start: &Start, words: &str) {
    let ended = start.ended();
    assert_eq!(ended.code, Some(73), "{:#?}", ended.err);
    assert_eq!(ended.err.len(), 1, "{:#?}", ended.err);
    for word in [words, "MESH_LLM_HOME", start.home_path().to_str().unwrap()] {
        assert!(
            ended.err[0].contains(word),
            "`{word}` is not in: {}",
            ended.err[0]
        );
    }
}

#[test]
fn a_home_below_a_file_is_refused() {
    let start = Start::model("tiny");
    let file = start.folder().join("file");
    fs::write(&file, "").unwrap();
    refused(&start.home(file.join("home")), "Not a directory");
}

#[test]
fn a_read_only_home_is_refused() {
    if !namespaces_available("a_read_only_home_is_refused") {
        return;
    }
    for model in ["tiny".into(), model(Kind::Least)] {
        let start = with_home(Start::model(model));
        let namespace = Namespace::read_only(start.home_path());
        refused(&start.within(namespace), "Read-only file system");
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_file() {
    if !namespaces_available("a_full_disk_is_told_and_leaves_no_half_file") {
        return;
    }
    // The embedded model has 3 MB.
    let start = with_home(Start::model("tiny"));
    let namespace = Namespace::small(start.home_path(), 1 << 20, 100);
    refused(&start.clone().within(namespace), "No space left on device");
    // No file can be made beside the state directory itself.
    let start = with_home(Start::model(model(Kind::Least)));
    let namespace = Namespace::small(start.home_path(), 1 << 20, 2);
    refused(&start.within(namespace), "No space left on device");
}

/// Fills the disk below the daemon's state directory, to the last byte and the last file.
fn fill(daemon: &Daemon) {
    let process = format!("/proc/{}/root", daemon.process.id().as_raw_nonzero());
    let folder = Path::new(&process).join(daemon.home().strip_prefix("/").unwrap());
    let full = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    full(fs::write(folder.join("models/filler"), vec![0; 8 << 20]).unwrap_err());
    let mut numbers = 0..1000;
    full(
        numbers
            .find_map(|number| File::create(folder.join(format!("models/{number}"))).err())
            .unwrap(),
    );
}

#[test]
fn a_disk_that_becomes_full_stops_nothing() {
    if !namespaces_available("a_disk_that_becomes_full_stops_nothing") {
        return;
    }
    let start = with_home(Start::model("tiny"));
    let namespace = Namespace::small(start.home_path(), 4 << 20, 20);
    let mut daemon = start.within(namespace).ready();
    fill(&daemon);
    daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
    // A restart needs a socket on the same disk.
    daemon.engine().signal(Signal::KILL);
    daemon.process.err.line("answers again", DEADLINE);
    daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
    daemon.process.signal(Signal::TERM);
    assert_eq!(daemon.process.end(DEADLINE).code(), Some(0));
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let start = Start::bare()
        .flag("--model", "tiny")
        .flag("--port", port.to_string())
        .word("-vv");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut process = Process::spawn(start.command().stdout(Stdio::null()).stderr(full));
    let client = crate::harness::Client::new(&format!("http://127.0.0.1:{port}"));
    crate::harness::eventually("it answers", DEADLINE, || {
        client
            .try_post("/v1/chat/completions", &chat("Hello!"))
            .ok()
            .filter(|answer| answer.status == 200)
    });
    process.signal(Signal::TERM);
    assert_eq!(process.end(DEADLINE).code(), Some(0));
}
