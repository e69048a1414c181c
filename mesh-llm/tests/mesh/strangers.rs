//! Strangers at the door, who have nothing good to show.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use iroh::endpoint::{Connection, RecvStream, SendStream, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, TransportAddr};
use mesh_llm::mesh::core::Part;
use mesh_llm::mesh::id::{Boot, MeshId, NodeId};
use mesh_llm::mesh::wire::{ALPN, Answer, Credential, Hello, Open, Reader, VERSIONS, encode};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::harness::Kind;
use crate::lab::{MeshLab, serving, using};

/// Kinds of attempts, of which the last say something that can be answered.
const KINDS: usize = 7;
const ANSWERED_FROM: usize = 4;

/// How often they try in the test suite; `ATTEMPTS=10000` tries longer.
const ATTEMPTS: usize = 600;

/// The port that they knock at.
const PORT: u16 = 4700;

/// Strangers at a time: as many as one address may be.
const AT_ONCE: usize = 16;

/// How long one waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request is answered in less.
const MOMENT: Duration = Duration::from_millis(300);

/// Bytes that a daemon may come to have more than after the first quarter.
const SLACK_BYTES: usize = 16 << 20;

/// What became of those who said something that could be answered.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    /// The door was closed before they could say it.
    turned_away: usize,
}

/// One attempt, which must not lead anywhere; whether it was refused in words.
async fn knock(endpoint: &Endpoint, at: EndpointAddr, number: usize) -> bool {
    let (mesh, kind) = (MeshId(at.id), number % KINDS);
    if kind == 0 {
        assert!(endpoint.connect(at, b"mesh-llm/mesh/0").await.is_err());
        return false;
    }
    let Ok(connection) = endpoint.connect(at, ALPN).await else {
        return false;
    };
    let hello = |mesh| {
        let hello = Hello {
            versions: VERSIONS,
            mesh,
            boot: Boot(number as u64),
            part: Part::Server,
            credential: Credential::Member,
        };
        encode(&hello).unwrap()
    };
    match kind {
        1 => false,
        2 => answer(&connection, &[7; 300]).await.is_some(),
        3 => answer(&connection, &[u8::MAX; 8]).await.is_some(),
        4 => answer(&connection, &hello(mesh)).await.is_some(),
        5 => answer_and_task(&connection, &hello(mesh)).await.is_some(),
        _ => answer(&connection, &hello(MeshId(endpoint.id()))).await.is_some(),
    }
}

/// Says something, and waits for what is said to it until the stream ends.
async fn answer(connection: &Connection, words: &[u8]) -> Option<()> {
    let (_sender, receiver) = say(connection, words).await?;
    refusal(receiver).await
}

/// The same, and asks for something right behind it, as clients do who are let in: it is not heard.
async fn answer_and_task(connection: &Connection, words: &[u8]) -> Option<()> {
    let (_sender, receiver) = say(connection, words).await?;
    let model = "least".to_owned();
    let mut task = encode(&Open::Http { model }).unwrap();
    task.extend(b"GET /v1/models HTTP/1.1\r\nHost: mesh\r\n\r\n");
    let (_task, mut outcome) = say(connection, &task).await?;
    refusal(receiver).await?;
    // For a moment the door waits for the refused to read why.
    let heard = timeout(MOMENT, outcome.read(&mut [0; 64])).await;
    assert!(!matches!(heard, Ok(Ok(Some(_)))), "a stranger is served");
    Some(())
}

/// Opens a stream with these words; it is not ended.
async fn say(connection: &Connection, words: &[u8]) -> Option<(SendStream, RecvStream)> {
    let (mut sender, receiver) = connection.open_bi().await.ok()?;
    sender.write_all(words).await.ok()?;
    Some((sender, receiver))
}

/// Hears why a stranger is not let in; none: nothing is said.
async fn refusal(mut receiver: RecvStream) -> Option<()> {
    let heard = receiver.read_to_end(1 << 20).await.ok()?;
    let mut reader = Reader::<Answer>::default();
    reader.push(&heard);
    match reader.pop().unwrap()? {
        Answer::Refused(_) => Some(()),
        Answer::Welcome(_) => panic!("a stranger is let in"),
    }
}

/// So many attempts from a host, several at a time.
fn try_all(lab: &MeshLab, at: &EndpointAddr, attempts: Range<usize>) -> Tally {
    lab.network.within(1, || {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let strangers = (0..AT_ONCE).map(|first| {
                let (at, attempts) = (at.clone(), attempts.clone());
                tokio::spawn(async move {
                    let builder = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled);
                    let endpoint = builder.bind().await.unwrap();
                    let mut tally = Tally::default();
                    for number in attempts.skip(first).step_by(AT_ONCE) {
                        let knocked = timeout(PATIENCE, knock(&endpoint, at.clone(), number));
                        match knocked.await.expect("nobody is left waiting") {
                            true => tally.refused += 1,
                            false if number % KINDS >= ANSWERED_FROM => tally.turned_away += 1,
                            false => {}
                        }
                    }
                    endpoint.close().await;
                    tally
                })
            });
            let mut all = Tally::default();
            for stranger in strangers.collect::<Vec<_>>() {
                let Tally { refused, turned_away } = stranger.await.unwrap();
                all.refused += refused;
                all.turned_away += turned_away;
            }
            all
        })
    })
}

/// Bytes of memory that a process has.
fn resident(process: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn strangers_who_come_again_and_again_are_refused_and_leave_nothing_behind() {
    let test = "strangers_who_come_again_and_again_are_refused_and_leave_nothing_behind";
    let attempts = std::env::var("ATTEMPTS").map_or(ATTEMPTS, |count| count.parse().unwrap());
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    let start = serving(Kind::Least).flag("--bind-port", PORT.to_string());
    let (first, token) = lab.founder(0, start);
    let node: NodeId = lab.id(&first).parse().unwrap();
    let address = SocketAddr::new(lab.network.address(0), PORT);
    let at = EndpointAddr::from_parts(node, [TransportAddr::Ip(address)]);
    let expected = first.ask("least");
    let bytes = || resident(first.process.id().as_raw_pid());
    let early = try_all(&lab, &at, 0..attempts / 4);
    let before = bytes();
    assert_eq!(first.ask("least"), expected);
    let late = try_all(&lab, &at, attempts / 4..attempts);
    let after = bytes();
    println!("{attempts} attempts: {early:?}, then {late:?}; {before} bytes, then {after}");
    assert!(early.refused > 0 && late.refused > late.turned_away, "{late:?}");
    assert!(after < before + SLACK_BYTES, "{before} bytes became {after}");
    // Who has a token comes in as ever.
    let laptop = lab.machine(2, using().flag("--join", &token));
    laptop.until_models(1);
    assert_eq!(laptop.ask("least"), expected);
    assert_eq!(lab.status(&first)["nodes"].as_array().unwrap().len(), 0);
}
