//! What cannot work is told in one line with the remedy, and by the exit code, before anything is
//! loaded.

use std::fs;
use std::net::TcpListener;

use crate::harness::{DEADLINE, Ended, Kind, Start, model};

/// Starts what must be refused: one line on standard error, nothing on standard output.
fn refused(start: &Start) -> (i32, String) {
    let Ended { code, err, out } = start.ended();
    assert_eq!(err.len(), 1, "one line tells why: {err:#?}");
    assert_eq!(out.len(), 0, "{out:?}");
    (code.expect("it ends by itself"), err[0].clone())
}

/// Starts what must be refused with this exit code and with all these words.
fn refused_with(start: &Start, code: i32, words: &[&str]) {
    let (actual, line) = refused(start);
    assert_eq!(actual, code, "{line}");
    for word in words {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
}

#[test]
fn a_taken_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused_with(
        &Start::model("tiny").flag("--port", &port),
        69,
        &[&port, "--port", "taken"],
    );
}

#[test]
fn an_address_that_is_not_this_machine_s() {
    refused_with(
        &Start::model("tiny").flag("--host", "192.0.2.1"),
        69,
        &["192.0.2.1", "--host"],
    );
}

#[test]
fn a_file_that_is_not_there() {
    refused_with(
        &Start::model("/no/such/model.gguf"),
        66,
        &["/no/such/model.gguf", "check the path"],
    );
}

#[test]
fn a_file_that_cannot_be_read() {
    // Permissions do not bind root; this file refuses to be read by anyone.
    refused_with(
        &Start::model("/proc/self/mem"),
        66,
        &["/proc/self/mem", "cannot be read"],
    );
}

#[test]
fn a_folder_in_place_of_a_file() {
    refused_with(&Start::model("/tmp"), 66, &["/tmp", "not a file"]);
}

#[test]
fn a_name_that_nobody_knows() {
    refused_with(&Start::model("llama-99"), 66, &["llama-99", "tiny"]);
}

#[test]
fn a_file_that_is_no_model() {
    let start = Start::bare();
    let page = start.folder().join("page.gguf");
    fs::write(&page, "<html>404</html>").unwrap();
    refused_with(
        &start.flag("--model", &page).flag("--port", "0"),
        65,
        &["page.gguf", "not a GGUF file", "download"],
    );
}

#[test]
fn a_model_that_was_not_downloaded_completely() {
    let start = Start::bare();
    let half = start.folder().join("half.gguf");
    let whole = fs::read(model(Kind::Least)).unwrap();
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    refused_with(
        &start.flag("--model", &half).flag("--port", "0"),
        65,
        &["half.gguf", "download it again"],
    );
}

#[test]
fn a_flag_that_does_not_exist() {
    refused_with(
        &Start::model("tiny").flag("--prot", "1"),
        2,
        &["--prot", "--port"],
    );
}

#[test]
fn a_flag_whose_value_means_nothing() {
    refused_with(
        &Start::model("tiny").flag("--parallel", "many"),
        2,
        &["--parallel", "many"],
    );
}

#[test]
fn a_variable_whose_value_means_nothing() {
    let start = Start::model("tiny").variable("MESH_LLM_PARALLEL", "many");
    refused_with(&start, 64, &["MESH_LLM_PARALLEL", "many", "unset"]);
}

#[test]
fn a_key_of_the_configuration_file_that_does_not_exist() {
    let start = Start::model("tiny").file_at_home("config.toml", "# ports\nprot = 1\n");
    refused_with(&start, 64, &["config.toml:2", "prot", "`port`"]);
}

#[test]
fn a_configuration_file_that_is_not_there() {
    let start = Start::model("tiny").flag("--config", "/no/such/config.toml");
    refused_with(&start, 66, &["/no/such/config.toml", "--config"]);
}

#[test]
fn a_folder_without_a_llama_server() {
    refused_with(
        &Start::model("tiny").flag("--bin-dir", "/tmp"),
        66,
        &["/tmp/llama-server", "--bin-dir"],
    );
}

#[test]
fn a_device_that_this_machine_does_not_have() {
    refused_with(
        &Start::model("tiny").flag("--device", "CUDA77"),
        64,
        &["CUDA77", "CPU"],
    );
}

#[test]
fn a_context_that_memory_does_not_hold() {
    let start = Start::model(model(Kind::Forgetless)).flag("--ctx-size", "16000000");
    let (code, line) = refused(&start);
    assert_eq!(code, 71, "{line}");
    assert!(line.contains("--ctx-size"), "the remedy is told: {line}");
    let (_, rest) = line.split_once("needs ").expect(&line);
    let (needs, rest) = rest.split_once(", ").expect(&line);
    let (free, _) = rest.split_once(" free").expect(&line);
    let [needs, free] = [needs, free].map(|size| match size.rsplit_once(' ').expect(&line) {
        (number, "GB") => number.parse::<f64>().unwrap() * 1e3,
        (number, _) => number.parse().unwrap(),
    });
    assert!(needs > free, "{line}");
}

#[test]
fn a_context_that_no_model_has() {
    let context = u32::MAX.to_string();
    refused_with(
        &Start::model("tiny").flag("--ctx-size", &context),
        64,
        &[&context, "--ctx-size", "16777216"],
    );
}

#[test]
fn nothing_is_loaded_before_a_port_is_there() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // This engine would leave a trace.
    let start = Start::model("tiny").flag("--port", port);
    let trace = start.folder().join("started");
    let start = start.engine_script(&format!("touch '{}'; cat", trace.display()));
    let mut process = start.process();
    assert_eq!(process.end(DEADLINE).code(), Some(69));
    assert!(!trace.exists());
}
