//! Who is compared, started once for all cases of a number of nodes.

use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::served::Served;
use super::stock::{Layers, Servers, Spread, Stock};
use super::{CaseOf, Kind, decode, loading, prefill, traffic};
use crate::lab::nodes::Nodes;
use crate::lab::workers::Workers;
use crate::support::arguments::Arguments;
use crate::support::models::BenchModel;
use crate::support::report::{Metric, Report};

/// As rows call them.
pub const SOLO: &str = "solo";
pub const OURS: &str = "ours";

/// What everything but traffic and loading is measured in.
pub const TIME: Metric = Metric::new("ms_per_token", "ms");

/// Layers of the model.
const LAYERS: u32 = 24;

/// What the head takes to compute, in layers: with these shares all nodes take equally long.
const HEAD: u32 = 3;

/// Something that is measured, or why it can't be.
pub struct Contender {
    /// As rows call it.
    pub name: &'static str,
    engine: Result<Box<dyn Engine>, String>,
}

impl Contender {
    fn new(name: &'static str, engine: anyhow::Result<impl Engine + 'static>) -> Self {
        let engine = engine.map(|engine| Box::new(engine) as Box<dyn Engine>);
        Self {
            name,
            engine: engine.map_err(|error| format!("{error:#}")),
        }
    }
}

/// All of them, on their nodes.
pub struct Contenders {
    /// Where they run.
    pub nodes: Nodes,
    /// Solo is the first.
    list: Vec<Contender>,
}

/// The values of a case, a list for each contender that could be measured, in their order.
pub struct Measured(Vec<(&'static str, Vec<f64>)>);

impl Measured {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &[f64])> {
        self.0.iter().map(|(name, values)| (*name, values.as_slice()))
    }

    /// Those of this name.
    pub fn of(&self, name: &str) -> Option<&[f64]> {
        self.all().find(|(its, _)| *its == name).map(|(_, values)| values)
    }

    /// What `compare` makes of ours and solo's values of each repetition.
    pub fn ours_to_solo(&self, compare: impl Fn(f64, f64) -> f64) -> Option<Vec<f64>> {
        let (ours, solo) = self.of(OURS).zip(self.of(SOLO))?;
        Some(
            ours.iter()
                .zip(solo)
                .map(|(ours, solo)| compare(*ours, *solo))
                .collect(),
        )
    }
}

impl Contenders {
    fn start(program: &Path, model: &Path, nodes: Nodes) -> anyhow::Result<Self> {
        nodes.set_rtt(0);
        let mut list = vec![Contender::new(SOLO, Served::solo(&nodes, model))];
        for spread in [Spread::HostAndServers, Spread::ServersOnly] {
            if nodes.count() > 1 || spread == Spread::HostAndServers {
                list.push(Contender::new(
                    spread.name(),
                    stock(program, &nodes, model, spread),
                ));
            }
        }
        if nodes.count() > 1 {
            list.push(Contender::new(OURS, ours(&nodes, model)));
        }
        Ok(Self { nodes, list })
    }

    /// Measures all in turn, so many times. One that fails is out, here and from now on: why is told where
    /// its row would be.
    pub fn in_turn(
        &mut self,
        report: &mut Report,
        case: &str,
        rounds: usize,
        measure: impl FnMut(&mut dyn Engine, &Nodes) -> anyhow::Result<f64>,
    ) -> Measured {
        in_turn(&mut self.list, &self.nodes, report, case, rounds, measure)
    }

    /// The same without solo.
    pub fn splits_in_turn(
        &mut self,
        report: &mut Report,
        case: &str,
        rounds: usize,
        measure: impl FnMut(&mut dyn Engine, &Nodes) -> anyhow::Result<f64>,
    ) -> Measured {
        in_turn(&mut self.list[1..], &self.nodes, report, case, rounds, measure)
    }
}

fn in_turn(
    list: &mut [Contender],
    nodes: &Nodes,
    report: &mut Report,
    case: &str,
    rounds: usize,
    mut measure: impl FnMut(&mut dyn Engine, &Nodes) -> anyhow::Result<f64>,
) -> Measured {
    let mut values = vec![Vec::new(); list.len()];
    for _ in 0..rounds {
        for (contender, values) in list.iter_mut().zip(&mut values) {
            if let Ok(engine) = &mut contender.engine {
                match measure(engine.as_mut(), nodes) {
                    Ok(value) => values.push(value),
                    Err(error) => contender.engine = Err(format!("{error:#}")),
                }
            }
        }
    }
    for contender in &*list {
        if let Err(reason) = &contender.engine {
            report.failed(case, contender.name, reason);
        }
    }
    let names = list.iter().map(|contender| contender.name);
    let whole = names.zip(values).filter(|(_, values)| values.len() == rounds);
    Measured(whole.collect())
}

/// Layers of each node, so that all take equally long where this one has the head.
pub fn layers(nodes: usize, with_head: usize) -> Vec<u32> {
    let nodes = nodes as u32;
    let share = (LAYERS + HEAD).div_ceil(nodes);
    let mut left = LAYERS;
    let mut layers = Vec::new();
    for node in 0..nodes {
        let most = if node as usize == with_head {
            share - HEAD
        } else {
            share
        };
        let own = most.min(left);
        left -= own;
        layers.push(own);
    }
    // What rounding left over.
    layers[nodes as usize - 1] += left;
    layers
}

/// llama.cpp's RPC over all nodes, with the head where it always is, on the last one; on one node no RPC.
///
/// # Errors
/// Where it does not load.
pub fn stock(program: &Path, nodes: &Nodes, model: &Path, spread: Spread) -> anyhow::Result<Stock> {
    let split = if nodes.count() == 1 {
        None
    } else {
        let servers = Servers::start(program, nodes, spread)?;
        let mut of_nodes = layers(nodes.count(), nodes.count() - 1);
        if let Some(last) = of_nodes.last_mut() {
            // llama.cpp counts the head as a layer.
            *last += 1;
        }
        Some((servers, Layers { of_nodes, spread }))
    };
    Stock::start(program, nodes, model, split)
}

/// Ours, with the workers that it is over.
struct Ours {
    served: Served,
    _workers: Workers,
}

impl Engine for Ours {
    fn decode(&mut self, nodes: &Nodes, streams: usize, tokens: usize) -> anyhow::Result<f64> {
        self.served.decode(nodes, streams, tokens)
    }

    fn prefill(&mut self, nodes: &Nodes, tokens: usize) -> anyhow::Result<f64> {
        self.served.prefill(nodes, tokens)
    }

    fn traffic(
        &mut self,
        nodes: &Nodes,
        prompt_tokens: usize,
        tokens: usize,
    ) -> anyhow::Result<super::engine::PerToken> {
        self.served.traffic(nodes, prompt_tokens, tokens)
    }
}

fn ours(nodes: &Nodes, model: &Path) -> anyhow::Result<Ours> {
    let workers = Workers::start(nodes, model, &[])?;
    Ok(Ours {
        served: Served::split(
            nodes,
            model,
            &workers,
            &layers(nodes.count(), crate::lab::nodes::HOST),
        )?,
        _workers: workers,
    })
}

/// Measures these cases of so many nodes.
///
/// # Errors
/// Where what is compared with cannot be measured.
pub fn measure(
    arguments: &Arguments,
    report: &mut Report,
    program: &Path,
    count: usize,
    cases: &[CaseOf],
) -> anyhow::Result<()> {
    let model: PathBuf = BenchModel::HalfBillion.path()?;
    let (loads, others): (Vec<&CaseOf>, Vec<&CaseOf>) =
        cases.iter().partition(|case| case.kind == Kind::Load);
    if !others.is_empty() {
        let mut contenders = Contenders::start(program, &model, Nodes::start(count)?)?;
        for case in others {
            contenders.nodes.set_rtt(case.rtt);
            match case.kind {
                Kind::Decode => decode::one_stream(arguments, report, &mut contenders, case),
                Kind::Streams => decode::eight_streams(arguments, report, &mut contenders, case)?,
                Kind::Prefill => prefill::measure(arguments, report, &mut contenders, case),
                Kind::Traffic => traffic::measure(arguments, report, &mut contenders, case),
                Kind::Load => {}
            }
        }
    }
    for case in loads {
        loading::measure(arguments, report, program, &model, case)?;
    }
    Ok(())
}
