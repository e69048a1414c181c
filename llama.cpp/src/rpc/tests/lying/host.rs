//! A host over liars: what the server does with a split, step by step.

use std::sync::Arc;

use super::Ground;
use super::script::{Habit, Plan, TOKENS};
use crate::llama::{Batch, Context, ContextParams, Model, ModelParams, Sampler};

use crate::rpc::client::{Patience, Role, Split};
use crate::rpc::tests::lab;
use crate::rpc::wire::Step;
use crate::server::engine::pipeline::{Pipeline, Submitted};
use crate::server::engine::task::Sampling;
use crate::server::options::CacheType;

/// Devices that llama.cpp takes.
const MOST_DEVICES: usize = 16;
/// Bytes that a worker's device sets aside.
const RESERVE: u64 = 64 << 20;

pub(super) struct Host {
    ground: Arc<Ground>,
    plan: Plan,
    addresses: Vec<String>,
}

pub(super) fn context_params() -> ContextParams {
    ContextParams {
        context: 256,
        batch: 32,
        micro_batch: 32,
        outputs: 32,
        ..lab::context_params(CacheType::F16)
    }
}

/// The tokens of a step, each of which wants its logits.
pub(super) fn step(tokens: u32, number: usize) -> Vec<(i32, u32, i32, bool)> {
    (0..tokens)
        .map(|token| {
            let position = token + tokens * number as u32;
            (20 + (position * 7919 % 200) as i32, position, 0, true)
        })
        .collect()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Host {
    pub(super) fn new(ground: Arc<Ground>, plan: Plan, addresses: Vec<String>) -> Self {
        Self {
            ground,
            plan,
            addresses,
        }
    }

    /// The logits of the steps that were taken; or why there are no more.
    pub(super) fn attempt(&self) -> Result<Vec<(usize, Vec<f32>)>, String> {
        let mut pipeline = self.split()?;
        let tokens = TOKENS[self.plan.tokens];
        if self.plan.has(Habit::Cancels) {
            pipeline.split().unwrap().cancel(Step(2), Step(3));
        }
        let mut all = Vec::new();
        for number in 0..self.plan.steps {
            let mut batch = Batch::default();
            for (token, position, sequence, output) in step(tokens, number) {
                batch.push(token, position, sequence, output);
            }
            match pipeline.submit(&mut batch, number) {
                Submitted::InFlight(_) => {}
                Submitted::NoRoom(_) => return Err("there is no room".into()),
                Submitted::Failed(_, error) => return Err(text(error)),
            }
            if !self.plan.has(Habit::Ahead) {
                self.take(&mut pipeline, &mut all)?;
            }
        }
        let taken = self.plan.steps - usize::from(self.plan.has(Habit::Leaves));
        while all.len() < taken {
            self.take(&mut pipeline, &mut all)?;
        }
        if self.plan.has(Habit::Saves) {
            let bytes = pipeline.save(0, 1 << 30).map_err(text)?;
            // Into a sequence that has nothing yet.
            let _ = pipeline.context().restore(1, &bytes);
            pipeline.context().truncate(0, tokens);
            pipeline.lost().map_or(Ok(()), |error| Err(text(error)))?;
        }
        Ok(all)
    }

    fn take(&self, pipeline: &mut Pipeline<usize>, all: &mut Vec<(usize, Vec<f32>)>) -> Result<(), String> {
        let finished = pipeline.take().expect("a step is on its way");
        finished.outcome.map_err(text)?;
        let context = pipeline.context();
        let rows = TOKENS[self.plan.tokens] as usize;
        let mut logits = Vec::new();
        (0..rows).for_each(|row| logits.extend(context.logits(row).into_iter().flatten()));
        // Whatever the numbers are, a token is chosen or refused.
        let mut sampler = Sampler::new(context.model(), &self.sampling()).map_err(text)?;
        if let Ok(token) = sampler.sample(context, rows - 1) {
            let _ = sampler.accept(token, true);
        }
        all.push((finished.step, logits));
        Ok(())
    }

    fn sampling(&self) -> Sampling {
        let greedy = Sampling::greedy();
        match self.plan.sampler {
            0 => greedy,
            1 => Sampling {
                temperature: 0.8,
                top_k: 40,
                top_p: 0.95,
                min_p: 0.05,
                ..greedy
            },
            2 => Sampling {
                temperature: 1.5,
                typical_p: 0.5,
                repeat_last_n: -1,
                repeat_penalty: 1.1,
                presence_penalty: 0.5,
                ..greedy
            },
            _ => Sampling {
                temperature: 1.0,
                ..greedy
            },
        }
    }

    fn split(&self) -> Result<Pipeline<usize>, String> {
        let ground = &self.ground;
        let split = Split::dial(
            &self.addresses,
            &lab::secret().into(),
            vec![ground.own.clone()],
            Patience::default(),
        )
        .map_err(text)?;
        let members = split.members();
        let mut shares = Vec::new();
        let mut seen = Vec::new();
        for member in &members {
            let room = shares.iter().filter(|share| **share > 0).count() + 2 < MOST_DEVICES;
            shares.push(match member.role {
                Role::First => u32::from(self.plan.has(Habit::HostLayers)),
                Role::Head => 1,
                Role::Worker(node) if seen.contains(&node) && !(self.plan.has(Habit::TakesAll) && room) => 0,
                Role::Worker(node) => {
                    seen.push(node);
                    1
                }
            });
        }
        let reserve: Vec<u64> = members
            .iter()
            .zip(&shares)
            .map(|(member, share)| match member.role {
                Role::Worker(_) if *share > 0 => RESERVE,
                _ => 0,
            })
            .collect();
        split
            .open(&reserve, &ground.source, &ground.identity)
            .map_err(text)?;
        let used = || members.iter().zip(&shares).filter(|(_, share)| **share > 0);
        let model_params = ModelParams {
            devices: Some(used().map(|(member, _)| member.device.clone()).collect()),
            gpu_layers: Some(100),
            tensor_split: used().map(|(_, share)| *share as f32).collect(),
            ..ModelParams::default()
        };
        // llama.cpp fails where a node was lost meanwhile, and only then.
        let lost = || text(split.shared().lost().expect("a node was lost"));
        let model = Model::load(&ground.sample.path, &model_params, |_| {}).map_err(|_| lost())?;
        split.load(|_| {}).map_err(text)?;
        let context = Context::new(Arc::new(model), context_params()).map_err(|_| lost())?;
        let pipeline = Pipeline::over(context, split);

        Ok(pipeline)
    }
}
