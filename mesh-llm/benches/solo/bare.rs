//! llama.cpp alone: the loop that a program needs to generate text, and nothing else.
//!
//! It runs in a process of its own, as the engine does, with a context made in the same way. The
//! measuring process holds a [`Bare`] and sends it work, a line of JSON each.

use std::env;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use llama_engine::llama::{self, Batch, Context, ContextParams, Decoded, Model, ModelParams, Token};
use llama_engine::server::engine::PROMPT_ROWS;
use llama_engine::server::options::{CacheType, FlashAttention};
use serde::{Deserialize, Serialize};
use sysinfo::System;

/// Most tokens of a step; the engine's number where the user does not say another.
const BATCH: u32 = 512;

/// The first token that is text in both models' vocabularies.
const FIRST_TEXT_TOKEN: usize = 260;

/// What the process is told when it starts.
#[derive(Debug, Serialize, Deserialize)]
pub struct BareOptions {
    /// The GGUF file.
    pub model: PathBuf,
    /// Tokens that all streams share.
    pub context: u32,
    /// Streams at once, at most.
    pub streams: u32,
}

/// What the process is asked to do, each time with nothing of the last time left over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Work {
    /// Answers prompts of so many tokens with so many tokens each; the time is that from the first
    /// token of all answers to the last.
    Decode {
        /// Answers at once.
        streams: usize,
        /// Of each prompt.
        prompt_tokens: usize,
        /// Of each answer.
        tokens: usize,
    },
    /// Continues a sequence of so many tokens with so many more, and chooses the next one. The time
    /// is that of the new ones: the others are kept from one time to the next.
    Continue {
        /// Tokens that the cache has.
        cached: usize,
        /// Tokens to compute.
        fresh: usize,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    nanoseconds: u64,
}

/// A running process.
#[derive(Debug)]
pub struct Bare {
    process: Child,
    orders: ChildStdin,
    results: BufReader<ChildStdout>,
}

impl Bare {
    /// Starts this program once more, and waits until its model is loaded.
    ///
    /// # Errors
    /// Where it does not load.
    pub fn start(options: &BareOptions) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("--bare").arg(serde_json::to_string(options)?);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take().context("no way to the bare loop")?;
        let results = BufReader::new(process.stdout.take().context("no way from the bare loop")?);
        let mut bare = Self {
            process,
            orders,
            results,
        };
        bare.run(Work::Decode {
            streams: 1,
            prompt_tokens: 1,
            tokens: 2,
        })?;
        Ok(bare)
    }

    /// Does the work once; how long it took.
    ///
    /// # Errors
    /// Where the process fails.
    pub fn run(&mut self, work: Work) -> anyhow::Result<Duration> {
        let mut line = serde_json::to_string(&work)?;
        line.push('\n');
        self.orders.write_all(line.as_bytes())?;
        let mut line = String::new();
        ensure!(self.results.read_line(&mut line)? > 0, "the bare loop ended");
        let done: Done = serde_json::from_str(&line)?;
        Ok(Duration::from_nanos(done.nanoseconds))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It holds nothing that it would have to put in order.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process itself: does what it is sent, until nothing more can come.
///
/// # Errors
/// Where llama.cpp fails.
pub fn serve(options: &BareOptions) -> anyhow::Result<()> {
    let mut bare = Loop::new(options)?;
    for line in stdin().lock().lines() {
        let time = match serde_json::from_str(&line?)? {
            Work::Decode {
                streams,
                prompt_tokens,
                tokens,
            } => bare.decode(streams, prompt_tokens, tokens)?,
            Work::Continue { cached, fresh } => bare.continue_sequence(cached, fresh)?,
        };
        let done = Done {
            nanoseconds: time.as_nanos().try_into()?,
        };
        writeln!(stdout(), "{}", serde_json::to_string(&done)?)?;
    }
    Ok(())
}

struct Loop {
    context: Context,
    batch: Batch,
    streams: u32,
    /// Tokens of the sequence that is continued.
    kept: usize,
    /// Times that something was done: prompts differ each time.
    times: usize,
}

impl Loop {
    fn new(options: &BareOptions) -> anyhow::Result<Self> {
        let params = ModelParams {
            devices: Some(Vec::new()),
            gpu_layers: Some(0),
            ..ModelParams::default()
        };
        let model = Arc::new(Model::load(&options.model, &params, |_| {})?);
        let context = ContextParams {
            context: options.context,
            batch: BATCH,
            micro_batch: BATCH,
            sequences: options.streams,
            outputs: options.streams + PROMPT_ROWS,
            rollback: 0,
            threads: threads(),
            cache_type_k: CacheType::default(),
            cache_type_v: CacheType::default(),
            flash_attention: FlashAttention::default(),
            embeddings: None,
        };
        let context = Context::new(model, context)?;
        Ok(Self {
            context,
            batch: Batch::default(),
            streams: options.streams,
            kept: 0,
            times: 0,
        })
    }

    fn decode(&mut self, streams: usize, prompt_tokens: usize, tokens: usize) -> anyhow::Result<Duration> {
        self.clear();
        let mut next = Vec::with_capacity(streams);
        for stream in 0..streams {
            next.push(self.prefill(stream, 0..prompt_tokens)?);
        }
        let begin = Instant::now();
        for step in 1..tokens {
            self.batch.clear();
            for (stream, token) in next.iter().enumerate() {
                self.batch
                    .push(*token, position(prompt_tokens + step - 1), stream as i32, true);
            }
            self.compute()?;
            for (stream, token) in next.iter_mut().enumerate() {
                *token = self.choose(stream)?;
            }
        }
        Ok(begin.elapsed())
    }

    fn continue_sequence(&mut self, cached: usize, fresh: usize) -> anyhow::Result<Duration> {
        if self.kept != cached {
            self.clear();
            self.prefill(0, 0..cached)?;
            self.kept = cached;
        }
        self.times += 1;
        ensure!(
            self.context.truncate(0, position(cached)),
            "the sequence cannot be cut"
        );
        let begin = Instant::now();
        self.prefill(0, cached..cached + fresh)?;
        Ok(begin.elapsed())
    }

    fn clear(&mut self) {
        for stream in 0..self.streams {
            self.context.truncate(stream as i32, 0);
        }
        self.kept = 0;
        self.times += 1;
    }

    /// Computes tokens at these positions and chooses the one after them.
    fn prefill(&mut self, stream: usize, positions: std::ops::Range<usize>) -> anyhow::Result<Token> {
        let text = self.context.model().vocab_size() as usize - FIRST_TEXT_TOKEN;
        let last = positions.end - 1;
        let positions: Vec<usize> = positions.collect();
        for chunk in positions.chunks(BATCH as usize) {
            self.batch.clear();
            for at in chunk {
                let token = FIRST_TEXT_TOKEN + (at * 7919 + stream * 104_729 + self.times * 31) % text;
                self.batch
                    .push(token as Token, position(*at), stream as i32, *at == last);
            }
            self.compute()?;
        }
        self.choose(self.batch.len() - 1)
    }

    fn compute(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.context.decode(&mut self.batch)? == Decoded::Done,
            "the context is too small"
        );
        Ok(())
    }

    /// The likeliest token of a row.
    fn choose(&mut self, row: usize) -> anyhow::Result<Token> {
        let logits = self.context.logits(row).context("the row has no logits")?;
        let mut best = (0, f32::NEG_INFINITY);
        for (token, logit) in logits.iter().enumerate() {
            if *logit > best.1 {
                best = (token, *logit);
            }
        }
        Ok(best.0 as Token)
    }
}

fn position(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// As many as the engine chooses: one for each physical core.
fn threads() -> u32 {
    llama::initialize();
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    let physical = System::physical_core_count().unwrap_or(logical);
    u32::try_from(physical.min(logical)).unwrap_or(1)
}
