//! Machines that compute with a model whose file they do not have: they download it first, and are sent no layers.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{DEADLINE, Kind, Start, eventually, model};
use crate::hub::Hub;
use crate::lab::{self, Machine, MeshLab, exact, serving};
use crate::splitting::until_group;

/// The repository and the file of a model in the embedded catalog.
const REPOSITORY: &str = "unsloth/Qwen3-0.6B-GGUF";
const FILE: &str = "Qwen3-0.6B-Q4_K_M.gguf";
const NAME: &str = "Qwen3-0.6B-Q4_K_M";

/// What the host says of a worker that it has to send layers.
const SENT: &str = "its weights are sent over the network";

/// A folder of models, with that of the catalog or without any.
struct Store(TempDir);

impl Store {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with_model(kind: Kind) -> Self {
        let store = Self::empty();
        fs::copy(model(kind), store.file()).unwrap();
        store
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(FILE)
    }

    /// A start of a machine whose models are here.
    fn of(&self, start: Start) -> Start {
        start
            .flag("--threads", "1")
            .variable("MESH_LLM_MODELS", self.0.path())
    }

    /// A start of one that serves the model, with others.
    fn serving(&self, kind: Kind) -> Start {
        exact(self.of(serving(kind))).flag("--model", self.file())
    }

    /// A start of one that only lends, and has its models from there.
    fn lending(&self, hub: &Hub, token: &str) -> Start {
        self.of(lab::lending())
            .flag("--join", token)
            .variable("HF_ENDPOINT", hub.endpoint())
    }
}

/// A hub that only this machine reaches, from which a model comes in so many seconds.
fn hub(lab: &MeshLab, host: usize, kind: Kind, seconds: u64) -> Hub {
    let hub = lab.network.within(host, Hub::start);
    let bytes = fs::read(model(kind)).unwrap();
    hub.behave(|behaviour| behaviour.bytes_per_second = Some(bytes.len() as u64 / seconds));
    hub.add(REPOSITORY, FILE, bytes);
    hub
}

fn has_sent(machine: &Machine) -> bool {
    machine
        .process
        .err
        .so_far()
        .iter()
        .any(|line| line.contains(SENT))
}

#[test]
fn a_worker_without_the_file_downloads_it_once_and_is_sent_no_layers() {
    let test = "a_worker_without_the_file_downloads_it_once_and_is_sent_no_layers";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let stores = [Store::with_model(Kind::Endless), Store::empty()];
    let hub = hub(&lab, 1, Kind::Endless, 4);
    let first = lab.machine(0, stores[0].serving(Kind::Endless).word("--split"));
    let token = first.invite();
    let second = lab.machine(1, stores[1].lending(&hub, &token));
    eventually("the host says who downloads", DEADLINE, || {
        let answer = first.try_get("/health").ok()?.json();
        let message = answer["error"]["message"].as_str()?;
        message
            .contains(&format!("{NAME} is being downloaded by "))
            .then_some(())
    });
    first.process.err.line(&format!(" to download {NAME}"), DEADLINE);
    eventually("the host knows how far it is", DEADLINE, || {
        let models = &lab.try_status(&first)?["this"]["models"];
        (models[0]["stage"] == "downloading" && models[0]["percent"].as_u64() > Some(0)).then_some(())
    });
    until_group(&lab, &first, 2);
    first.until_models(1);
    let answer = first.ask(NAME);
    assert_eq!(
        fs::read(stores[1].file()).unwrap(),
        fs::read(stores[0].file()).unwrap()
    );
    assert!(!has_sent(&first));
    second
        .process
        .err
        .line(&format!("wants to split {NAME} with this machine"), DEADLINE);
    // The next time it is there.
    hub.clear_log();
    let home = second.home().to_owned();
    lab.said(&second, &["stop"]);
    // The start keeps the folder.
    let _start = second.start.clone();
    drop(second);
    first.until_health("more_peers_needed");
    let _second = lab.machine(1, stores[1].lending(&hub, &token).home(home));
    until_group(&lab, &first, 2);
    first.until_models(1);
    assert_eq!(first.ask(NAME), answer);
    assert!(hub.log().is_empty() && !has_sent(&first));
}

#[test]
fn a_worker_that_cannot_have_the_same_file_is_sent_its_layers() {
    let test = "a_worker_that_cannot_have_the_same_file_is_sent_its_layers";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let stores = [Store::with_model(Kind::Endless), Store::empty()];
    // Of the same name, as several repositories have it.
    let hub = hub(&lab, 1, Kind::Least, 1);
    let first = lab.machine(0, stores[0].serving(Kind::Endless).word("--split"));
    let second = lab.machine(1, stores[1].lending(&hub, &first.invite()));
    until_group(&lab, &first, 2);
    first.until_models(1);
    first.ask(NAME);
    let why = second.process.err.line(" was not downloaded: ", DEADLINE);
    assert!(why.contains("so it is another one"), "{why}");
    first
        .process
        .err
        .line("its download failed: it says why itself", DEADLINE);
    first.process.err.line(SENT, DEADLINE);
    assert_eq!(hub.sent_bytes(), 0);
    assert!(!stores[1].file().exists());
}

#[test]
fn a_group_serves_on_until_a_machine_that_is_to_take_its_place_has_the_file() {
    let test = "a_group_serves_on_until_a_machine_that_is_to_take_its_place_has_the_file";
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    lab.network.set_rtt_between(0, 1, Duration::from_millis(60));
    let [first_store, far_store] = [(); 2].map(|()| Store::with_model(Kind::Endless));
    let near_store = Store::empty();
    let hub = hub(&lab, 2, Kind::Endless, 15);
    let first = lab.machine(0, first_store.serving(Kind::Endless).word("--split"));
    let token = first.invite();
    let far = lab.machine(1, far_store.of(lab::lending()).flag("--join", &token));
    let group = until_group(&lab, &first, 2);
    assert_eq!(group[1], lab.id(&far));
    first.until_models(1);
    let body = json!({"model": NAME, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0});
    let answer = first.post("/v1/completions", &body).ok()["choices"][0]["text"].clone();
    let near = lab.machine(2, near_store.lending(&hub, &token));
    near.process
        .err
        .line(&format!("wants to split {NAME} with this machine"), DEADLINE);
    for _ in 0..3 {
        let again = first.post("/v1/completions", &body).ok();
        assert_eq!(again["choices"][0]["text"], answer);
    }
    assert_eq!(until_group(&lab, &first, 2), group);
    let id = lab.id(&near);
    eventually("the near machine has taken its place", DEADLINE, || {
        (until_group(&lab, &first, 2)[1] == id).then_some(())
    });
    first.until_models(1);
    first.ask(NAME);
    assert!(!has_sent(&first));
}
