//! Machines with a network between them, each of which may run the real binary.

use std::ops::Deref;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, DEADLINE, Ended, Kind, Process, Start, eventually, model};
use crate::netlab::{Door, NetLab};
use crate::relay::Relay;

/// Where the API of each machine is, on its own loopback.
const PORT: u16 = 9337;

/// The machines.
#[derive(Debug)]
pub struct MeshLab {
    pub network: NetLab,
    relay: Option<Relay>,
}

/// A machine on which mesh-llm runs.
#[derive(Debug)]
pub struct Machine {
    client: Client,
    pub process: Process,
    pub start: Start,
    pub host: usize,
    _door: Door,
}

impl Deref for Machine {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A start of a machine that serves this model.
pub fn serving(kind: Kind) -> Start {
    with_mesh(
        Start::model(model(kind))
            .flag("--ctx-size", "1024")
            .flag("--parallel", "2"),
    )
}

/// A start of one that was told to serve nothing, and so lends.
pub fn lending() -> Start {
    with_mesh(Start::bare().flag("--ctx-size", "1024"))
}

/// A start of one that only uses others.
pub fn using() -> Start {
    with_mesh(Start::bare().word("--client"))
}

/// A start whose answers are the same each time, however long: guesses come in other shapes each time, which add up in
/// another order.
pub fn exact(start: Start) -> Start {
    start.flag("--speculate", "off")
}

/// Both are the same; else where they part.
pub fn assert_same(text: &str, expected: &str) {
    let parts_at = text
        .bytes()
        .zip(expected.bytes())
        .position(|(one, other)| one != other);
    let part = |text: &str, at: usize| {
        String::from_utf8_lossy(&text.as_bytes()[at..])
            .chars()
            .take(60)
            .collect::<String>()
    };
    let at = parts_at.unwrap_or(text.len().min(expected.len()));
    assert!(
        text == expected,
        "of {} and {} bytes, {at} are the same, then {:?} comes in place of {:?}",
        text.len(),
        expected.len(),
        part(text, at),
        part(expected, at)
    );
}

fn with_mesh(start: Start) -> Start {
    start
        .flag("--port", PORT.to_string())
        .variable("MESH_LLM_NO_MESH", "0")
}

impl MeshLab {
    /// So many machines. None, and a line that says so, where this one permits no netlab.
    pub fn start(test: &str, machines: usize) -> Option<Self> {
        let network = NetLab::available(test).then(|| NetLab::start(machines).unwrap())?;
        network.set_rtt(Duration::from_millis(2));
        Some(Self { network, relay: None })
    }

    /// The same, and one more host with a plain relay that all reach.
    pub fn with_relay(test: &str, machines: usize) -> Option<Self> {
        Self::beside(test, machines, Relay::start)
    }

    /// The same with a full relay, by which machines learn at once how they look from outside.
    pub fn with_full_relay(test: &str, machines: usize) -> Option<Self> {
        Self::beside(test, machines, Relay::full)
    }

    fn beside(
        test: &str,
        machines: usize,
        relay: fn(&NetLab, usize) -> anyhow::Result<Relay>,
    ) -> Option<Self> {
        let lab = Self::start(test, machines + 1)?;
        let relay = relay(&lab.network, machines).unwrap();
        Some(Self {
            relay: Some(relay),
            ..lab
        })
    }

    /// A start of a machine that uses the lab's relay.
    pub fn relayed(&self, start: Start) -> Start {
        let relay = self.relay.as_ref().expect("the lab has a relay");
        let start = start
            .flag("--relay", relay.url())
            .variable("MESH_LLM_NO_RELAY", "0");
        match relay.certificate() {
            Some(file) => start.variable("SSL_CERT_FILE", file.to_str().unwrap()),
            None => start,
        }
    }

    /// Starts a daemon, whatever becomes of it, with its API reachable from here.
    pub fn machine(&self, host: usize, start: Start) -> Machine {
        let process = self.network.within(host, || start.process());
        let door = self.network.door(host, PORT).unwrap();
        Machine {
            client: Client::new(&format!("http://{}", door.address())),
            process,
            start,
            host,
            _door: door,
        }
    }

    /// Starts one that is ready to serve, and the token that it shows.
    pub fn founder(&self, host: usize, start: Start) -> (Machine, String) {
        let machine = self.machine(host, start);
        let token = machine.invite();
        machine.until_models(1);
        (machine, token)
    }

    /// Starts a workstation, a second machine and a laptop, which know each other's two models; and the token that the
    /// others came by.
    pub fn household(&self) -> ([Machine; 3], String) {
        let (first, token) = self.founder(0, serving(Kind::Endless));
        let second = self.machine(1, serving(Kind::Least).flag("--join", &token));
        let laptop = self.machine(2, using().flag("--join", &token));
        let machines = [first, second, laptop];
        for machine in &machines {
            machine.until_models(2);
        }
        (machines, token)
    }

    /// Starts a daemon and waits until it has ended by itself.
    pub fn ended(&self, host: usize, start: &Start) -> Ended {
        self.network.within(host, || start.ended())
    }

    /// Runs a command beside a daemon.
    pub fn command(&self, machine: &Machine, words: &[&str]) -> Output {
        let start = words
            .iter()
            .fold(Start::bare().home(machine.start.home_path()), |start, word| {
                start.word(word)
            });
        self.network
            .within(machine.host, || start.command().output().unwrap())
    }

    /// The same, which succeeds: what it says.
    pub fn said(&self, machine: &Machine, words: &[&str]) -> String {
        let output = self.command(machine, words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What `mesh-llm status` says, if the daemon is there already.
    pub fn try_status(&self, machine: &Machine) -> Option<Value> {
        let output = self.command(machine, &["status", "--json"]);
        serde_json::from_slice(&output.stdout)
            .ok()
            .filter(|_| output.status.success())
    }

    /// What `mesh-llm status` says.
    pub fn status(&self, machine: &Machine) -> Value {
        serde_json::from_str(&self.said(machine, &["status", "--json"])).unwrap()
    }

    /// Waits until packets go between two machines by this path, as the first of them sees it.
    pub fn until_path(&self, machine: &Machine, other: &Machine, path: &str) {
        let id = self.id(other);
        eventually(&format!("the path is {path}"), DEADLINE, || {
            let status = self.try_status(machine)?;
            let mut all = ["nodes", "clients"]
                .map(|kind| status[kind].as_array().unwrap())
                .into_iter()
                .flatten();
            let other = all.find(|other| other["id"] == id.as_str())?;
            (other["path"] == path).then_some(())
        });
    }

    /// The id of a machine in the mesh.
    pub fn id(&self, machine: &Machine) -> String {
        self.status(machine)["this"]["id"].as_str().unwrap().to_owned()
    }
}

impl Machine {
    /// The token that it shows.
    pub fn invite(&self) -> String {
        let line = self.process.err.line("Invite token: ", DEADLINE);
        line.rsplit(' ').next().unwrap().to_owned()
    }

    /// Waits until its health has this code; what it says.
    pub fn until_health(&self, code: &str) -> String {
        eventually(&format!("health is {code}"), DEADLINE, || {
            let answer = self.try_get("/health").ok()?.json();
            (answer["error"]["code"] == code).then(|| answer["error"]["message"].as_str().unwrap().to_owned())
        })
    }

    /// The names of all models that can be asked for here.
    pub fn models(&self) -> Option<Vec<String>> {
        let answer = self
            .try_get("/v1/models")
            .ok()
            .filter(|answer| answer.status == 200)?
            .json();
        let names = answer["data"].as_array()?.iter();
        Some(
            names
                .map(|model| model["id"].as_str().unwrap().to_owned())
                .collect(),
        )
    }

    /// Waits until so many models can be asked for.
    pub fn until_models(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} models can be asked for"), DEADLINE, || {
            self.models().filter(|models| models.len() == count)
        })
    }

    /// Waits until these, in their order, are all models that can be asked for.
    pub fn until_only(&self, names: &[&str]) {
        eventually(&format!("{names:?} can be asked for"), DEADLINE, || {
            let mut models = self.models()?;
            models.sort();
            (models == names).then_some(())
        });
    }

    /// What a model says, greedily.
    pub fn ask(&self, model: &str) -> String {
        let body = json!({"model": model, "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0});
        let answer = self.post("/v1/completions", &body).ok();
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    }

    /// Where its state is.
    pub fn home(&self) -> &Path {
        self.start.home_path()
    }
}
