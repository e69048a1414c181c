//! A host: loads, then does what it is told and says how long it took.

use std::io::{BufRead, Write, stdin, stdout};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::HostOptions;
use crate::llama::{self, Context, Model, Placement, Row};

/// The first token that is text in the vocabularies of models with random weights.
const FIRST_TEXT_TOKEN: usize = 260;

/// What it can be told.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Work {
    /// Forgets everything, and computes a prompt of so many tokens for each stream.
    Prefill { streams: usize, tokens: usize },
    /// Continues all streams by so many tokens.
    Decode { tokens: usize },
}

/// What it answers.
#[derive(Debug, Serialize)]
struct Done {
    nanoseconds: u64,
}

/// Loads, and works until there is nothing more to do.
///
/// # Errors
/// Where llama.cpp fails; where a server fails, llama.cpp ends the process itself.
pub fn run(options: &HostOptions) -> anyhow::Result<()> {
    llama::initialize();
    let began = Instant::now();
    let model = Model::load(&Placement {
        file: &options.model,
        servers: &options.rpc,
        gpu_layers: options.gpu_layers,
        tensor_split: &options.tensor_split,
    })?;
    let context = Context::new(model, options.context, options.streams, options.threads)?;
    answer(began.elapsed())?;
    let mut host = Host {
        context,
        streams: Vec::new(),
        times: 0,
    };
    for line in stdin().lock().lines() {
        let began = Instant::now();
        match serde_json::from_str(&line?)? {
            Work::Prefill { streams, tokens } => host.prefill(streams, tokens)?,
            Work::Decode { tokens } => host.decode(tokens)?,
        }
        answer(began.elapsed())?;
    }
    Ok(())
}

fn answer(time: Duration) -> anyhow::Result<()> {
    let done = Done {
        nanoseconds: time.as_nanos().try_into()?,
    };
    writeln!(stdout(), "{}", serde_json::to_string(&done)?)?;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    /// The token to be computed next, and its position.
    next: i32,
    position: usize,
}

struct Host {
    context: Context,
    streams: Vec<Stream>,
    /// Prefills so far: prompts differ each time.
    times: usize,
}

impl Host {
    fn prefill(&mut self, streams: usize, tokens: usize) -> anyhow::Result<()> {
        ensure!(tokens > 0, "a prompt has a token at least");
        self.context.clear();
        self.streams.clear();
        self.times += 1;
        let text = self.context.vocabulary() - FIRST_TEXT_TOKEN;
        for stream in 0..streams {
            let prompt: Vec<Row> = (0..tokens)
                .map(|at| Row {
                    token: (FIRST_TEXT_TOKEN + (at * 7919 + stream * 104_729 + self.times * 31) % text)
                        as i32,
                    position: at as i32,
                    stream: stream as i32,
                    output: at + 1 == tokens,
                })
                .collect();
            let mut last = 0;
            for batch in prompt.chunks(self.context.batch_limit()) {
                self.context.decode(batch)?;
                last = batch.len() - 1;
            }
            self.streams.push(Stream {
                next: self.context.likeliest(last)?,
                position: tokens,
            });
        }
        self.context.synchronize();
        Ok(())
    }

    fn decode(&mut self, tokens: usize) -> anyhow::Result<()> {
        for _ in 0..tokens {
            let rows: Vec<Row> = (0..)
                .zip(&self.streams)
                .map(|(number, stream)| Row {
                    token: stream.next,
                    position: stream.position as i32,
                    stream: number,
                    output: true,
                })
                .collect();
            self.context.decode(&rows)?;
            for (row, stream) in self.streams.iter_mut().enumerate() {
                stream.next = self.context.likeliest(row)?;
                stream.position += 1;
            }
        }
        Ok(())
    }
}
