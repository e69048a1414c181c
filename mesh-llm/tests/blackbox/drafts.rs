//! Draft models: which are used, which are refused, and what is told of guesses.

use std::fs;
use std::path::{Path, PathBuf};

use llama_engine::gguf::random::{self, Architecture};
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Daemon, Ended, Kind, Start, model};
use crate::starting::chat;

/// What the log says where a draft model is used.
const USED: &str = "guesses ahead for";

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

/// A user's model `Big`, which the catalog has the draft model `Small` for.
struct Pair {
    start: Start,
    store: PathBuf,
}

impl Pair {
    fn new(big: &Path) -> Self {
        let start = Start::model("Big").file_at_home(
            "catalog.tsv",
            "name\tsize\thf_repo\tfile\tdraft\n\
             Big\t1GB\tme/big\tbig.gguf\tSmall\n\
             Small\t1GB\tme/small\tsmall.gguf\t\n",
        );
        let store = start.folder().join("models");
        fs::create_dir(&store).unwrap();
        fs::copy(big, store.join("big.gguf")).unwrap();
        Self {
            start: start.variable("MESH_LLM_MODELS", &store),
            store,
        }
    }

    fn with_draft(self, small: &Path) -> Start {
        fs::copy(small, self.store.join("small.gguf")).unwrap();
        self.start
    }
}

fn has_line(daemon: &Daemon, words: &str) -> bool {
    daemon
        .process
        .err
        .so_far()
        .iter()
        .any(|line| line.contains(words))
}

fn refused(start: &Start, code: i32, words: &[&str]) {
    let Ended {
        code: actual, err, ..
    } = start.ended();
    assert_eq!(err.len(), 1, "one line tells why: {err:#?}");
    assert_eq!(actual, Some(code), "{}", err[0]);
    for word in words {
        assert!(err[0].contains(word), "`{word}` is not in: {}", err[0]);
    }
}

#[test]
fn the_help_tells_of_them() {
    let help = Start::bare().word("--help").ended().out.join("\n");
    for flag in [
        "--draft <MODEL>",
        "--no-draft",
        "--draft-max <N>",
        "--draft-min-p <P>",
        "--speculate <WHAT>",
        "--draft-windows <N>",
    ] {
        assert!(help.contains(flag), "{flag} is not in:\n{help}");
    }
}

#[test]
fn the_embedded_model_has_one_and_no_draft_turns_it_off() {
    let daemon = Start::model("tiny").ready();
    assert!(has_line(&daemon, USED), "{:#?}", daemon.process.err.so_far());
    for words in [
        &["--no-draft"][..],
        &["--speculate", "off"],
        &["--speculate", "ngram"],
    ] {
        let start = words
            .iter()
            .fold(Start::model("tiny"), |start, word| start.word(word));
        let daemon = start.ready();
        assert!(!has_line(&daemon, USED), "{words:?}");
        daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
    }
}

#[test]
fn one_that_the_catalog_has_is_used_if_it_is_on_disk() {
    let pair = Pair::new(&asset("mesh-tiny.gguf"));
    let daemon = pair.start.clone().word("-v").ready();
    assert!(!has_line(&daemon, USED));
    assert!(has_line(&daemon, "`mesh-llm download --draft Big`"));
    drop(daemon);
    let daemon = pair.with_draft(&asset("mesh-tiny-draft.gguf")).ready();
    assert!(has_line(&daemon, USED));
}

#[test]
fn one_that_was_found_and_speaks_of_other_tokens_is_passed_over() {
    let pair = Pair::new(&asset("mesh-tiny.gguf"));
    let daemon = pair.with_draft(&model(Kind::Endless)).ready();
    let line = daemon.process.err.line("is not used for", DEADLINE);
    assert!(
        line.contains("small.gguf") && line.contains("tokenizer"),
        "{line}"
    );
    assert!(!has_line(&daemon, USED));
    daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
}

#[test]
fn one_that_was_asked_for_and_speaks_of_other_tokens_is_refused() {
    refused(
        &Start::model("tiny").flag("--draft", model(Kind::Endless)),
        64,
        &["--draft", "endless.gguf", "cannot guess for tiny", "tokenizer"],
    );
}

#[test]
fn one_that_is_no_model_is_refused() {
    let start = Start::model("tiny");
    let page = start.folder().join("page.gguf");
    fs::write(&page, "<html>404</html>").unwrap();
    refused(
        &start.clone().flag("--draft", &page),
        65,
        &["page.gguf", "not a GGUF file"],
    );
    refused(&start.flag("--draft", "/no/such.gguf"), 66, &["/no/such.gguf"]);
}

#[test]
fn one_that_cannot_take_guesses_back_is_refused() {
    refused(
        &Start::model(model(Kind::Of(Architecture::Llama)))
            .flag("--draft", model(Kind::Of(Architecture::Mamba))),
        64,
        &["cannot guess", "mamba", "taken back"],
    );
}

/// An EAGLE-3 file for the model that never ends an answer.
fn eagle(start: &Start) -> PathBuf {
    let path = start.folder().join("eagle.gguf");
    let eagle = random::Eagle {
        target: random::small(Architecture::Llama, 7),
        layers: [0, 1, 3],
        mixture: 0.1,
        words: random::Words::Own,
    };
    eagle.write(&path).unwrap();
    path
}

#[test]
fn an_eagle_head_that_was_asked_for_guesses() {
    let start = Start::model(model(Kind::Endless));
    let path = eagle(&start);
    let start = start.flag("--draft", path).flag("--draft-windows", "1");
    let daemon = start.ready();
    assert!(has_line(&daemon, USED), "{:#?}", daemon.process.err.so_far());
    let mut request = chat("Hello!");
    request["max_tokens"] = json!(32);
    let answer = daemon.post("/v1/chat/completions", &request).ok();
    let guesses = &answer["timings"]["draft_by_source"]["heads"];
    assert!(guesses["drafted"].as_u64() > Some(0), "{answer}");
}

#[test]
fn an_eagle_head_for_another_model_is_refused() {
    let start = Start::model("tiny");
    let path = eagle(&start);
    refused(
        &start.flag("--draft", path),
        64,
        &["eagle.gguf", "cannot guess for tiny", "hidden states"],
    );
}

#[test]
fn an_eagle_head_is_no_model() {
    let start = Start::bare();
    let path = eagle(&start);
    refused(&start.flag("--model", path), 65, &["eagle.gguf", "--draft"]);
}

#[test]
fn one_that_memory_does_not_hold_is_refused_with_numbers() {
    refused(
        &Start::model(model(Kind::Endless))
            .flag("--draft", model(Kind::Forgetless))
            .flag("--ctx-size", "2000000")
            .flag("--parallel", "1"),
        71,
        &["its draft model", " free on host", "--draft"],
    );
}

#[test]
fn a_model_that_cannot_take_guesses_back_goes_without_and_says_so_once() {
    let daemon = Start::model(model(Kind::Of(Architecture::Mamba))).ready();
    let lines = daemon.process.err.so_far();
    let told = lines.iter().filter(|line| line.contains("guesses nothing ahead"));
    assert_eq!(told.count(), 1, "{lines:#?}");
    daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
}

#[test]
fn what_became_of_guesses_is_told_in_every_form() {
    let daemon = Start::model("tiny").ready();
    let mut request = chat("Tell me a story.");
    request["max_tokens"] = json!(16);
    request["prediction"] =
        json!({"type": "content", "content": [{"type": "text", "text": "Once upon a time"}]});
    let answer = daemon.post("/v1/chat/completions", &request).ok();
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {answer}"));
    let details = &answer["usage"]["completion_tokens_details"];
    let (accepted, rejected) = (
        count(&details["accepted_prediction_tokens"]),
        count(&details["rejected_prediction_tokens"]),
    );
    let timings = &answer["timings"];
    assert_eq!(count(&timings["draft_n"]), accepted + rejected);
    assert_eq!(count(&timings["draft_n_accepted"]), accepted);
    let sources = ["ngram", "prediction", "model", "heads"];
    let sum = |what: &str| -> u64 {
        let of = |source: &&str| count(&timings["draft_by_source"][source][what]);
        sources.iter().map(of).sum()
    };
    assert_eq!(
        (sum("drafted"), sum("accepted"), sum("wasted")),
        (accepted + rejected, accepted, rejected)
    );
    assert!(timings["draft_windows"]["mean"].is_number() && timings["draft_windows"]["most"].is_u64());

    let metrics = daemon.get("/metrics").text;
    for source in sources {
        for name in ["draft_tokens", "draft_tokens_accepted", "draft_tokens_wasted"] {
            let metric = format!("mesh_llm_{name}_total{{");
            let line = metrics
                .lines()
                .find(|line| line.starts_with(&metric) && line.contains(&format!("source=\"{source}\"")));
            assert!(line.is_some(), "no {name} of {source} in:\n{metrics}");
        }
    }
    assert!(metrics.contains("mesh_llm_draft_windows_in_flight"), "{metrics}");
}

#[test]
fn a_prediction_that_means_nothing_is_named() {
    let daemon = Start::model("tiny").ready();
    let mut request = chat("Hello!");
    request["prediction"] = json!({"type": "content", "content": [{"type": "image_url"}]});
    let error = daemon.post("/v1/chat/completions", &request).error(400);
    assert_eq!(error["param"], "prediction.content[0]");
}
