//! Models by name: what is listed, fetched, checked and removed, and what is served.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Client, DEADLINE, Ended, Kind, Signal, Start, eventually, model};
use crate::hub::Hub;

/// The repository and the file of a model in the embedded catalog.
const REPOSITORY: &str = "unsloth/Qwen3-0.6B-GGUF";
const FILE: &str = "Qwen3-0.6B-Q4_K_M.gguf";
const NAME: &str = "Qwen3-0.6B-Q4_K_M";

/// A user with a store, and a hub to download from.
struct User {
    hub: Hub,
    store: PathBuf,
    start: Start,
}

impl User {
    fn new() -> Self {
        let (hub, start) = (Hub::start(), Start::bare());
        let store = start.folder().join("models");
        let start = start
            .variable("MESH_LLM_MODELS", &store)
            .variable("HF_ENDPOINT", hub.endpoint());
        Self { hub, store, start }
    }

    /// Puts a real model where the catalog says that it is.
    fn publish(&self) -> Vec<u8> {
        let bytes = fs::read(model(Kind::Endless)).unwrap();
        self.hub.add(REPOSITORY, FILE, bytes.clone());
        bytes
    }

    fn run(&self, words: &[&str]) -> Ended {
        let start = words
            .iter()
            .fold(self.start.clone(), |start, word| start.word(word));
        start.ended()
    }

    /// What a command prints for programs.
    fn rows(&self, words: &[&str]) -> Vec<Value> {
        let ended = self.run(&[words, &["--log-format", "json"]].concat());
        assert_eq!(ended.code, Some(0), "{:?}", ended.err);
        ended
            .out
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn told(ended: &Ended) -> String {
    ended.err.join("\n")
}

#[test]
fn a_model_is_downloaded_by_name_listed_checked_and_removed() {
    let user = User::new();
    let bytes = user.publish();
    let row = |rows: Vec<Value>| rows.into_iter().find(|row| row["name"] == NAME).unwrap();
    assert_eq!(row(user.rows(&["download"]))["on_disk"], false);

    let ended = user.run(&["download", "qwen3", "0.6b"]);
    assert_eq!(ended.code, Some(0), "{}", told(&ended));
    assert!(told(&ended).contains("100 %"), "{}", told(&ended));
    assert_eq!(fs::read(user.store.join(FILE)).unwrap(), bytes);
    assert_eq!(row(user.rows(&["download"]))["on_disk"], true);

    let listed = row(user.rows(&["models"]));
    assert_eq!(listed["architecture"], "llama");
    assert_eq!(listed["bytes"], bytes.len());
    assert_eq!(listed["keeper"], "store");

    // The hub told its SHA-256, so that damage is seen that leaves the form right.
    assert_eq!(user.rows(&["models", "check"])[0]["sha256"], true);
    // A disk that forgets leaves the date alone; a file that was written anew is another one.
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    let written = fs::metadata(user.store.join(FILE)).unwrap().modified().unwrap();
    fs::write(user.store.join(FILE), damaged).unwrap();
    let file = fs::File::options()
        .append(true)
        .open(user.store.join(FILE))
        .unwrap();
    file.set_modified(written).unwrap();
    let ended = user.run(&["models", "check", "qwen3"]);
    assert_eq!(ended.code, Some(65));
    assert!(ended.out.join("\n").contains("damaged"), "{:?}", ended.out);

    let ended = user.run(&["models", "rm", "qwen3"]);
    assert_eq!(ended.code, Some(64), "nobody is there to say yes");
    let ended = user.run(&["models", "rm", "qwen3", "--yes"]);
    assert_eq!(ended.code, Some(0), "{}", told(&ended));
    assert!(!user.store.join(FILE).exists());
    assert_eq!(user.rows(&["models"]), Vec::<Value>::new());
}

#[test]
fn a_model_that_is_not_there_is_downloaded_while_the_api_says_so_and_then_served() {
    let user = User::new();
    let bytes = user.publish();
    user.hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(bytes.len() as u64 / 4));
    let port = own_port();
    let start = user
        .start
        .clone()
        .flag("--model", "Qwen3 0.6B")
        .flag("--threads", "1")
        .flag("--port", port.to_string());
    let process = start.process();
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    let health = eventually("the API says how far the download is", DEADLINE, || {
        let health = client.try_get("/health").ok()?;
        (health.status == 503 && health.json()["percent"].is_u64()).then_some(health)
    });
    assert_eq!(health.json()["status"], "loading");
    assert!(health.header("retry-after").is_some());
    let error = client.get("/v1/models").error(503);
    assert!(
        error["message"].as_str().unwrap().contains("is being downloaded"),
        "{error}"
    );
    process.err.line(" answers at http://", DEADLINE);
    assert_eq!(client.get("/v1/models").ok()["data"][0]["id"], NAME);
}

#[test]
fn a_daemon_that_is_told_to_end_while_it_downloads_ends_and_goes_on_later() {
    let user = User::new();
    let bytes = user.publish();
    let rate = bytes.len() as u64 / 8;
    user.hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(rate));
    let start = user
        .start
        .clone()
        .flag("--model", NAME)
        .flag("--port", "0")
        .flag("--threads", "1");
    let mut process = start.process();
    eventually("bytes arrive", DEADLINE, || {
        (user.hub.sent_bytes() > rate).then_some(())
    });
    process.signal(Signal::TERM);
    assert_eq!(process.end(Duration::from_secs(30)).code(), Some(0));
    assert!(!user.store.join(FILE).exists());
    user.hub.behave(|behaviour| behaviour.bytes_per_second = None);
    start.ready();
    assert_eq!(fs::read(user.store.join(FILE)).unwrap(), bytes);
}

#[test]
fn an_interrupted_download_is_listed_and_removed_but_not_under_a_process() {
    let user = User::new();
    let rate = user.publish().len() as u64 / 8;
    user.hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(rate));
    let mut process = user.start.clone().word("download").word(NAME).process();
    eventually("bytes are there for certain", DEADLINE, || {
        let rows = user.rows(&["models"]);
        let done = rows.first()?["download"]["done_bytes"].as_u64()?;
        (done > 0 && rows[0]["download"]["running"] == true).then_some(())
    });
    let ended = user.run(&["models", "rm", NAME, "--yes"]);
    assert_eq!(ended.code, Some(66), "{}", told(&ended));
    assert!(told(&ended).contains("by another process"), "{}", told(&ended));
    process.signal(Signal::KILL);
    process.end(DEADLINE);
    let row = &user.rows(&["models"])[0];
    assert_eq!(
        (&row["name"], &row["download"]["running"]),
        (&NAME.into(), &false.into())
    );
    let listed = user.run(&["models"]).out.join("\n");
    assert!(listed.contains("interrupted"), "{listed}");
    let ended = user.run(&["models", "rm", "qwen3", "--yes"]);
    assert_eq!(ended.code, Some(0), "{}", told(&ended));
    assert_eq!(fs::read_dir(&user.store).unwrap().count(), 0);
    assert_eq!(user.rows(&["models"]), Vec::<Value>::new());
}

#[test]
fn a_repository_s_quantizations_are_told_where_the_wanted_one_is_missing() {
    let user = User::new();
    for file in ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "README.md"] {
        user.hub
            .add("org/m-GGUF", file, fs::read(model(Kind::Least)).unwrap());
    }
    let ended = user.run(&["download", "org/m-GGUF:Q5_K_M"]);
    assert_eq!(ended.code, Some(66), "{}", told(&ended));
    assert!(told(&ended).contains("Q4_K_M, Q8_0"), "{}", told(&ended));
    // Without one, the usual; and it is found again without a word to the hub.
    assert_eq!(user.run(&["download", "org/m-GGUF"]).code, Some(0));
    assert!(user.store.join("m-Q4_K_M.gguf").exists());
    user.hub.clear_log();
    let daemon = user
        .start
        .clone()
        .flag("--model", "org/m-GGUF:q4_k_m")
        .flag("--port", "0")
        .flag("--threads", "1")
        .ready();
    assert_eq!(daemon.get("/v1/models").ok()["data"][0]["id"], "m-Q4_K_M");
    assert!(user.hub.log().is_empty());
}

#[test]
fn parts_that_do_not_fit_together_are_refused_before_the_first_is_asked_for() {
    let user = User::new();
    for part in ["m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"] {
        user.hub
            .add("org/m-GGUF", part, fs::read(model(Kind::Least)).unwrap());
    }
    user.hub.behave(|behaviour| behaviour.false_size = Some(1 << 50));
    let ended = user.run(&["download", "org/m-GGUF"]);
    assert_eq!(ended.code, Some(73), "{}", told(&ended));
    let both = (2u64 << 50).to_string();
    assert!(told(&ended).contains(&both), "{}", told(&ended));
    assert_eq!(user.hub.log().len(), 1, "only the list was asked for");
}

#[test]
fn names_that_lead_nowhere_are_answered_with_what_there_is() {
    let user = User::new();
    fs::create_dir_all(&user.store).unwrap();
    fs::copy(model(Kind::Least), user.store.join("My-Model.gguf")).unwrap();
    for (words, code, said) in [
        (vec!["--model", "nonsense"], 66, "My-Model"),
        (vec!["--model", "32b"], 66, "Qwen3-32B-Q4_K_M"),
        (vec!["download", "32b"], 66, "Qwen2.5-32B-Instruct-Q4_K_M"),
        (vec!["download", "org/missing"], 66, "org/missing"),
        (vec!["models", "rm", "nonsense"], 66, "My-Model"),
        (vec!["download", "Mixtral-8x22B"], 66, "catalog.tsv"),
    ] {
        let ended = user.run(&words);
        assert_eq!(ended.code, Some(code), "{words:?}: {}", told(&ended));
        assert!(told(&ended).contains(said), "{words:?}: {}", told(&ended));
        assert_eq!(ended.err.len(), 1, "{:?}", ended.err);
    }
}

#[test]
fn a_catalog_of_the_user_adds_to_the_embedded_one() {
    let user = User::new();
    user.hub
        .add("me/mine", "mine.gguf", fs::read(model(Kind::Least)).unwrap());
    let table = "name\tsize\thf_repo\tfile\nMy-Own-7B\t1GB\tme/mine\tmine.gguf\n";
    fs::create_dir_all(user.start.home_path()).unwrap();
    fs::write(user.start.home_path().join("catalog.tsv"), table).unwrap();
    let ended = user.run(&["download", "my own 7b"]);
    assert_eq!(ended.code, Some(0), "{}", told(&ended));
    assert!(user.store.join("mine.gguf").exists());
}

#[test]
fn a_file_of_one_repository_is_not_taken_for_that_of_another() {
    let user = User::new();
    for repository in ["one/m-GGUF", "two/m-GGUF"] {
        user.hub
            .add(repository, "m-Q4_K_M.gguf", fs::read(model(Kind::Least)).unwrap());
    }
    assert_eq!(user.run(&["download", "one/m-GGUF"]).code, Some(0));
    let ended = user.run(&["download", "two/m-GGUF"]);
    assert_eq!(ended.code, Some(66), "{}", told(&ended));
    assert!(told(&ended).contains("came from one/m-GGUF"), "{}", told(&ended));
}

#[test]
fn what_is_downloaded_and_no_model_is_told_and_does_not_stay() {
    let user = User::new();
    let url = user.hub.add_plain("x.gguf", "<html>not here</html>");
    let ended = user.run(&["download", &url]);
    assert_eq!(ended.code, Some(65), "{}", told(&ended));
    assert!(!user.store.join("x.gguf").exists());
}

#[test]
fn the_api_is_for_those_who_show_a_key() {
    let start = Start::model("tiny").variable("MESH_LLM_API_KEY", "secret");
    let daemon = start.ready();
    assert_eq!(daemon.get("/health").status, 200);
    assert_eq!(daemon.get("/v1/models").error(401)["code"], "invalid_api_key");
    let message = daemon.post("/v1/messages", &serde_json::json!({})).json();
    assert_eq!(message["error"]["type"], "authentication_error");
    let ended = Start::model("tiny")
        .variable("MESH_LLM_API_KEY_FILE", "/nowhere")
        .ended();
    assert_eq!(ended.code, Some(66), "{}", told(&ended));
    let ended = Start::model("tiny").flag("--api-key", " ").ended();
    assert_eq!(ended.code, Some(64), "{}", told(&ended));
}

/// A port for this test alone: below those that the system hands out, another for each run.
fn own_port() -> u16 {
    20_000 + (std::process::id() % 10_000) as u16
}
