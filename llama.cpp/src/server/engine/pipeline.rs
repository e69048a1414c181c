//! Steps on their way through the model.
//!
//! Steps are submitted and their results taken in order. On one node a step is computed while it is
//! submitted and one is in flight at most; where devices queue, as those of a split do, more are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::llama::{Batch, Context, Decoded, Error, Rows, SequenceId, Target};
use crate::rpc::client::{Post, Split};
use crate::rpc::wire::Step;

/// Computes steps in order; `T` is what the caller wants back with a step's results.
#[derive(Debug)]
pub struct Pipeline<T> {
    context: Context,
    split: Option<Arc<Split>>,
    step_delay: Duration,
    in_flight: VecDeque<Flight<T>>,
    /// Steps so far, where no split counts them.
    steps: u64,
}

/// A step on its way.
#[derive(Debug)]
struct Flight<T> {
    since: Instant,
    /// How long it took to queue.
    queued: Duration,
    number: u64,
    step: T,
    /// What the devices of a split will answer; nothing where the context has it.
    answer: Option<(Rows, Vec<Post>)>,
}

/// What became of a step.
#[derive(Debug)]
pub enum Submitted<T> {
    /// It is on its way, under this number.
    InFlight(u64),
    /// The cache has no room for it; nothing changed.
    NoRoom(T),
    /// llama.cpp could not compute it.
    Failed(T, Error),
}

/// A step whose results are in the context.
#[derive(Debug)]
pub struct Finished<T> {
    /// When it was submitted.
    pub since: Instant,
    /// How long submitting took.
    pub queued: Duration,
    /// Its number.
    pub number: u64,
    /// What was submitted with it.
    pub step: T,
    /// From submission to results.
    pub time: Duration,
    /// Whether there are results.
    pub outcome: Result<(), Error>,
}

impl<T> Pipeline<T> {
    /// A pipeline over `context`, whose steps are computed while they are submitted.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            split: None,
            step_delay: Duration::ZERO,
            in_flight: VecDeque::new(),
            steps: 0,
        }
    }

    /// Each step takes so much longer, if it is computed while it is submitted.
    pub fn delayed(self, step_delay: Duration) -> Self {
        Self { step_delay, ..self }
    }

    /// A pipeline over `context`, whose devices are those of `split`.
    pub fn over(context: Context, split: Arc<Split>) -> Self {
        Self {
            split: Some(split),
            ..Self::new(context)
        }
    }

    /// The devices' side, if the model is split.
    pub fn split(&self) -> Option<&Arc<Split>> {
        self.split.as_ref()
    }

    /// Steps in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = &T> {
        self.in_flight.iter().map(|flight| &flight.step)
    }

    /// The same, to take note of what became of them.
    pub fn in_flight_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.in_flight.iter_mut().map(|flight| &mut flight.step)
    }

    /// Forgets steps of which nobody wants the results. Devices that have not begun with them never will.
    /// What they would have written into the cache is not there.
    pub fn cancel(&mut self, is_void: impl Fn(&T) -> bool) {
        let Some(split) = &self.split else { return };
        let numbers = self.in_flight.iter().filter(|flight| is_void(&flight.step));
        let mut range: Option<(u64, u64)> = None;
        for number in numbers.map(|flight| flight.number) {
            range = match range {
                Some((first, last)) if last + 1 == number => Some((first, number)),
                Some((first, last)) => {
                    split.cancel(Step(first), Step(last));
                    Some((number, number))
                }
                None => Some((number, number)),
            };
        }
        if let Some((first, last)) = range {
            split.cancel(Step(first), Step(last));
            self.in_flight.retain(|flight| !is_void(&flight.step));
        }
    }

    /// Whether taking the oldest step may take time, and something else can be done meanwhile: only
    /// devices that queue compute by themselves.
    pub fn must_wait(&self) -> bool {
        let answer = self.in_flight.front().and_then(|flight| flight.answer.as_ref());
        answer.is_some_and(|(_, posts)| !posts.iter().all(Post::is_ready))
    }

    /// The context: its cache, and the logits of the step that was taken last.
    pub fn context(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Whether a step can be submitted before one is taken.
    pub fn has_room(&self) -> bool {
        self.split.is_some() || self.in_flight.is_empty()
    }

    /// Whether no step is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends a step on its way.
    pub fn submit(&mut self, batch: &mut Batch, step: T) -> Submitted<T> {
        let since = Instant::now();
        let Queued {
            number,
            decoded,
            answer,
        } = match &self.split {
            Some(split) => queue(split, &mut self.context, batch),
            None => {
                self.steps += 1;
                Queued {
                    number: self.steps,
                    decoded: self.compute(batch),
                    answer: None,
                }
            }
        };
        match decoded {
            Ok(Decoded::Done) => {
                self.in_flight.push_back(Flight {
                    since,
                    queued: since.elapsed(),
                    number,
                    step,
                    answer,
                });
                Submitted::InFlight(number)
            }
            Ok(Decoded::NoRoom) => Submitted::NoRoom(step),
            Err(error) => Submitted::Failed(step, self.lost().unwrap_or(error)),
        }
    }

    fn compute(&mut self, batch: &mut Batch) -> Result<Decoded, Error> {
        let decoded = self.context.decode(batch)?;
        if decoded == Decoded::Done {
            thread::sleep(self.step_delay);
        }
        Ok(decoded)
    }

    /// Why nothing will ever be computed again.
    pub fn lost(&self) -> Option<Error> {
        let lost = self.split.as_ref()?.shared().lost()?;
        Some(Error::Lost(lost.to_string()))
    }

    /// What the cache has of a sequence, as bytes; see [`Context::save`].
    ///
    /// # Errors
    /// As there; and where a node was lost meanwhile, for then not all of it was read.
    pub fn save(&mut self, sequence: SequenceId, most_bytes: u64) -> Result<Vec<u8>, Error> {
        let bytes = self.context.save(sequence, most_bytes)?;
        self.lost().map_or(Ok(bytes), Err)
    }

    /// Waits for the oldest step. `None` if none is in flight.
    pub fn take(&mut self) -> Option<Finished<T>> {
        let Flight {
            since,
            queued,
            number,
            step,
            answer,
        } = self.in_flight.pop_front()?;
        let outcome = match answer {
            None => self.context.synchronize(),
            Some((rows, posts)) => collect(rows, posts).map(|rows| self.context.adopt(rows)),
        };
        Some(Finished {
            since,
            queued,
            number,
            step,
            time: since.elapsed(),
            outcome,
        })
    }
}

/// What became of a batch that was given to llama.cpp.
struct Queued {
    number: u64,
    decoded: Result<Decoded, Error>,
    /// What devices will answer.
    answer: Option<(Rows, Vec<Post>)>,
}

/// Queues a step on the devices of a split.
fn queue(split: &Split, context: &mut Context, batch: &mut Batch) -> Queued {
    let number = split.begin_step().0;
    let decoded = context.decode_queued(batch);
    let posts = split.end_step();
    if !matches!(decoded, Ok(Decoded::Done)) {
        return Queued {
            number,
            decoded,
            answer: None,
        };
    }
    let targets: Vec<Target> = posts.iter().map(Post::target).collect();
    // SAFETY: the posts are the reads of logits of this step, and their answers go elsewhere.
    let rows = unsafe { context.expect_rows(&targets) };
    Queued {
        number,
        decoded,
        answer: Some((rows, posts)),
    }
}

/// Waits for a step's logits.
fn collect(mut rows: Rows, posts: Vec<Post>) -> Result<Rows, Error> {
    for post in posts {
        let bytes = post.wait().map_err(|lost| Error::Lost(lost.to_string()))?;
        rows.append(&bytes);
    }
    Ok(rows)
}
