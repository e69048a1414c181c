//! Lending this machine's devices: what is said, and who gets in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::harness::{BINARY, DEADLINE, Signal, Start, Worker};

#[test]
fn the_help_says_where_it_listens_and_what_the_host_needs() {
    let told = Start::bare().word("rpc-server").word("--help").ended();
    assert_eq!(told.code, Some(0));
    let help = told.out.join("\n");
    for words in [
        "[default: 127.0.0.1:9338]",
        "--secret-file <FILE>",
        "--max-memory <GB>",
        "--model-dir <DIR>",
        "mesh-llm --model Qwen3-8B --rpc 10.0.0.2:9338",
    ] {
        assert!(help.contains(words), "`{words}` is not in:\n{help}");
    }
}

#[test]
fn under_the_name_rpc_server_it_is_one() {
    let start = Start::bare();
    let link = start.folder().join("rpc-server");
    symlink(BINARY, &link).unwrap();
    let told = Command::new(&link).arg("--version").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.starts_with("rpc-server "), "{told}");
}

#[test]
fn the_first_start_makes_a_secret_that_is_its_user_s_alone_and_says_where() {
    let start = Worker::plain();
    let first = Worker::start(&start);
    let path = start.home_path().join("rpc-secret");
    first.process.err.line(path.to_str().unwrap(), DEADLINE);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&path).unwrap();
    assert!(
        secret.trim().len() == 64 && secret.trim().chars().all(|digit| digit.is_ascii_hexdigit()),
        "32 random bytes"
    );
    let mut second = Worker::start(&start);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        secret,
        "the next start leaves it"
    );
    second.process.signal(Signal::TERM);
    second.process.end(DEADLINE);
    let told = second.process.err.all(DEADLINE).join("\n");
    assert!(!told.contains("made a secret"), "{told}");
    assert!(
        !told.contains(secret.trim()) && !first.process.err.so_far().join("\n").contains(secret.trim()),
        "the secret itself is never told"
    );
}

#[test]
fn a_secret_that_can_be_guessed_is_refused_on_both_sides() {
    let start = Worker::plain();
    let file = start.folder().join("secret");
    fs::write(&file, "  fifteen chars..\n").unwrap();
    for start in [
        start.clone().flag("--secret-file", &file),
        Worker::plain().variable("MESH_LLM_RPC_SECRET", "fifteen chars.."),
        Start::model("tiny")
            .flag("--rpc", "127.0.0.1:1")
            .flag("--rpc-secret-file", &file),
    ] {
        let ended = start.ended();
        assert_eq!(ended.code, Some(64), "{:?}", ended.err);
        let told = ended.err.join("\n");
        for words in ["16 characters", "15 characters", "openssl rand -hex 32"] {
            assert!(told.contains(words), "`{words}` is not in: {told}");
        }
        assert!(!told.contains("fifteen"), "{told}");
    }
}

#[test]
fn only_a_worker_that_others_can_reach_warns() {
    let open = Worker::start(&Worker::plain().flag("--listen", "0.0.0.0:0"));
    open.process.err.line("neither encrypted", DEADLINE);
    let mut closed = Worker::start(&Worker::plain());
    closed.process.signal(Signal::TERM);
    closed.process.end(DEADLINE);
    let told = closed.process.err.all(DEADLINE).join("\n");
    assert!(!told.contains("encrypted"), "{told}");
}

#[test]
fn what_cannot_be_offered_is_refused_by_its_name() {
    let taken = Worker::start(&Worker::plain());
    for (start, code, words) in [
        (Worker::plain().flag("--device", "XPU7"), 64, "XPU7"),
        (
            Worker::plain().flag("--model-dir", "/no/such/folder"),
            66,
            "/no/such/folder",
        ),
        (
            Worker::plain().flag("--secret-file", "/no/such/secret"),
            66,
            "/no/such/secret",
        ),
        (
            Worker::plain().flag("--listen", &taken.address),
            69,
            &taken.address,
        ),
        (Worker::plain().flag("--max-memory", "0"), 2, "such as 7.5"),
    ] {
        let ended = start.ended();
        let told = ended.err.join("\n");
        assert!(
            ended.code == Some(code) && told.contains(words),
            "{:?}: {told}",
            ended.code
        );
    }
}
