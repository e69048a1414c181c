//! What of the engine's states is worth a word.

use crate::engine::{Failure, State};
use llama_engine::status::Ready;
use std::time::Duration;

/// Something to tell the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The weights are being read.
    Loading { percent: u8 },
    /// The engine answers requests, for the first time.
    Ready { ready: Ready, workers: Vec<String> },
    /// The engine answers requests after a crash.
    ReadyAgain,
    /// The engine crashed.
    Crashed {
        crashes: u32,
        cause: String,
        delay: Duration,
    },
    /// The engine lost a node of its split.
    Lost { message: String },
    /// A worker of the split cannot be used yet.
    Waiting { message: String },
    /// It is not served here: another machine serves it, or has this one's memory, or there is none.
    Elsewhere { message: String },
    /// The engine will not run again.
    Failed(Failure),
}

/// How finely loading is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steps {
    /// Every percent, for a line that is written over.
    Fine,
    /// Every ten percent, for a log.
    Coarse,
}

impl Steps {
    fn percent(self) -> u8 {
        match self {
            Steps::Fine => 1,
            Steps::Coarse => 10,
        }
    }
}

/// Follows the engine's states.
#[derive(Debug)]
pub(super) struct Progress {
    steps: Steps,
    told_step: Option<u8>,
    was_ready: bool,
    /// What is wrong with the split, said once however often it is tried.
    told_trouble: Option<String>,
}

impl Progress {
    pub(super) fn new(steps: Steps) -> Self {
        Self {
            steps,
            told_step: None,
            was_ready: false,
            told_trouble: None,
        }
    }

    /// Takes the next state; states may repeat or be left out.
    pub(super) fn news(&mut self, state: &State) -> Option<News> {
        match state {
            // Told where it is done.
            State::Downloading { by, .. } if by.is_empty() => None,
            State::Downloading { model, by, .. } => {
                let message = format!("{} to download {model}", by.join(", "));
                self.trouble(&message).map(|message| News::Waiting { message })
            }
            State::Starting => {
                self.told_step = None;
                None
            }
            State::Loading { percent } => {
                let step = percent / self.steps.percent();
                // What was loaded once is in the system's cache: not worth many words again.
                if self.was_ready || self.told_step.is_some_and(|told| told >= step) {
                    return None;
                }
                self.told_step = Some(step);
                Some(News::Loading { percent: *percent })
            }
            State::Ready(_) if self.was_ready => {
                self.told_trouble = None;
                Some(News::ReadyAgain)
            }
            State::Ready(serving) => {
                self.told_trouble = None;
                self.was_ready = true;
                Some(News::Ready {
                    ready: serving.ready.clone(),
                    workers: serving.workers.clone(),
                })
            }
            State::Restarting {
                crashes,
                cause,
                delay,
            } => Some(News::Crashed {
                crashes: *crashes,
                cause: cause.clone(),
                delay: *delay,
            }),
            State::Lost { message } => self.trouble(message).map(|message| News::Lost { message }),
            State::Waiting { message } => self.trouble(message).map(|message| News::Waiting { message }),
            State::Elsewhere { message } => self.trouble(message).map(|message| News::Elsewhere { message }),
            State::Failed(failure) => Some(News::Failed(failure.clone())),
            State::Stopping => None,
        }
    }

    /// Trouble that was not told yet.
    fn trouble(&mut self, message: &str) -> Option<String> {
        // What is loaded next may be divided in another way.
        self.told_step = None;
        if self.told_trouble.as_deref() == Some(message) {
            return None;
        }
        self.told_trouble = Some(message.to_owned());
        self.told_trouble.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(steps: Steps, percents: &[u8]) -> Vec<u8> {
        let mut progress = Progress::new(steps);
        let news = percents
            .iter()
            .filter_map(|percent| progress.news(&State::Loading { percent: *percent }));
        news.map(|news| match news {
            News::Loading { percent } => percent,
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn a_log_is_told_every_ten_percent() {
        let every: Vec<u8> = (0..=100).collect();
        assert_eq!(
            told(Steps::Coarse, &every),
            [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
        );
        assert_eq!(told(Steps::Coarse, &[3, 9, 47, 48, 12, 100]), [3, 47, 100]);
    }

    #[test]
    fn a_terminal_is_told_every_percent_once() {
        assert_eq!(told(Steps::Fine, &[0, 1, 1, 2]), [0, 1, 2]);
    }

    #[test]
    fn what_is_wrong_with_a_split_is_told_once() {
        let mut progress = Progress::new(Steps::Coarse);
        let message = || "worker a:1: refused".to_owned();
        let waiting = State::Waiting { message: message() };
        assert_eq!(
            progress.news(&waiting),
            Some(News::Waiting { message: message() })
        );
        assert_eq!(progress.news(&waiting), None);
        assert_eq!(progress.news(&State::Starting), None);
        assert_eq!(progress.news(&waiting), None);
        let other = State::Waiting {
            message: "worker a:1: another secret".to_owned(),
        };
        assert!(progress.news(&other).is_some());
        let lost = State::Lost { message: message() };
        assert_eq!(progress.news(&lost), Some(News::Lost { message: message() }));
        assert_eq!(progress.news(&lost), None);
    }

    #[test]
    fn a_second_start_is_told_anew() {
        let mut progress = Progress::new(Steps::Coarse);
        assert!(progress.news(&State::Loading { percent: 50 }).is_some());
        assert!(progress.news(&State::Starting).is_none());
        assert!(progress.news(&State::Loading { percent: 0 }).is_some());
    }
}
