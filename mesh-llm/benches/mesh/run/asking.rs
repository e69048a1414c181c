//! What a request costs that goes through the mesh.

use super::RTT;
use super::machine::{Machine, Part, Start};
use crate::netlab::NetLab;
use crate::support::arguments::Arguments;
use crate::support::client::Answered;
use crate::support::report::{Metric, Report};
use crate::support::variants::in_turn;

const FIRST: Metric = Metric::new("first byte", "ms");
const TRIPS: Metric = Metric::new("first byte, beyond the server's own", "RTT");
const RATE: Metric = Metric::new("stream", "tokens/s");
const RATIO: Metric = Metric::new("stream", "ratio");

/// Tokens of an answer whose beginning is measured.
const SHORT: usize = 4;

/// How a question reaches the machine that answers.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// On the machine itself.
    Local,
    /// By TCP to its API. Its time begins when the connection is there, which takes another round trip.
    Direct,
    /// By the asking machine's own API, which is connected to the other already.
    Mesh,
}

const WAYS: [Way; 3] = [Way::Local, Way::Direct, Way::Mesh];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Local => "on the server",
            Way::Direct => "direct, TCP",
            Way::Mesh => "mesh",
        }
    }

    fn ask(self, client: &Machine<'_>, server: &Machine<'_>, tokens: usize) -> anyhow::Result<Answered> {
        match self {
            Way::Local => server.ask("second", tokens),
            Way::Direct => client.ask_directly(server, "second", tokens),
            Way::Mesh => client.ask("second", tokens),
        }
    }
}

fn first_ms(answered: &Answered) -> f64 {
    answered.time_to_first().as_secs_f64() * 1e3
}

/// Measures a request of a client to a node that it is not connected to yet, then the ways beside each other.
///
/// # Errors
/// Where one is not answered.
pub fn measure(arguments: &Arguments, report: &mut Report, name: &str) -> anyhow::Result<()> {
    let lab = NetLab::start(3)?;
    lab.set_rtt(RTT);
    let (_first, token) = Machine::found(&lab, 0, "first", None)?;
    let server = Machine::start(&lab, Start::new(1, Part::Serves("second"), Some(&token)))?;
    server.until_models(&["first", "second"])?;
    // The first time its prompt is computed, later it is found.
    server.ask("second", SHORT)?;
    let mut cold = Vec::new();
    for _ in 0..arguments.amount(3, 10) {
        // By the token it is connected to the first node only.
        let client = Machine::start(&lab, Start::new(2, Part::Client, Some(&token)))?;
        client.until_models(&["first", "second"])?;
        cold.push(first_ms(&client.ask("second", SHORT)?));
    }
    let client = Machine::start(&lab, Start::new(2, Part::Client, Some(&token)))?;
    client.until_models(&["first", "second"])?;
    client.ask("second", SHORT)?;
    let warm = in_turn(WAYS, arguments.amount(5, 20), |way, _| {
        anyhow::Ok(first_ms(&way.ask(&client, &server, SHORT)?))
    })?;
    let tokens = arguments.amount(2_000, 6_000);
    let rates = in_turn(WAYS, arguments.amount(2, 5), |way, _| {
        anyhow::Ok(way.ask(&client, &server, tokens)?.rate())
    })?;
    let of =
        |rounds: &[[f64; 3]], way: usize| -> Vec<f64> { rounds.iter().map(|round| round[way]).collect() };
    let own = of(&warm, 0);
    let own = own.iter().sum::<f64>() / own.len() as f64;
    let trips = |values: &[f64]| -> Vec<f64> {
        let rtt = RTT.as_secs_f64() * 1e3;
        values.iter().map(|value| (value - own) / rtt).collect()
    };
    let mut rows = report.case(name);
    rows.row("mesh, cold", FIRST, &cold);
    rows.row("mesh, cold", TRIPS, &trips(&cold));
    for (index, way) in WAYS.into_iter().enumerate() {
        let values = of(&warm, index);
        rows.row(way.name(), FIRST, &values);
        rows.row(way.name(), TRIPS, &trips(&values));
    }
    for (index, way) in WAYS.into_iter().enumerate() {
        rows.row(way.name(), RATE, &of(&rates, index));
    }
    let ratios: Vec<f64> = rates.iter().map(|[_, direct, mesh]| mesh / direct).collect();
    rows.row("mesh / direct", RATIO, &ratios);
    Ok(())
}
