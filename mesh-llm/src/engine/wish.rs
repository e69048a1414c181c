//! What is wished of a task that serves, and how it comes to its end.

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a task is to do; each goes further than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Serve.
    Serve,
    /// Finish what runs, save what is to be saved, and end.
    Finish,
    /// End at once.
    Die,
}

/// A task that serves until it is wished otherwise.
#[derive(Debug)]
pub struct Wished<T> {
    wish: watch::Sender<Wish>,
    task: JoinHandle<T>,
}

impl<T: Send + 'static> Wished<T> {
    /// Starts it.
    pub fn start<F>(task: impl FnOnce(watch::Receiver<Wish>) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (wish, wishes) = watch::channel(Wish::Serve);
        Self {
            wish,
            task: tokio::spawn(task(wishes)),
        }
    }

    /// Wishes it to finish, and does not wait for it.
    pub fn finish(&self) {
        self.wish.send_if_modified(|wish| {
            let is_news = *wish < Wish::Finish;
            *wish = Wish::Finish.max(*wish);
            is_news
        });
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Has it finish, at once if `impatience` is over first. What it returned, if it did not panic, and whether it was cut
    /// short.
    pub async fn end(self, impatience: impl Future<Output = ()>) -> (Option<T>, bool) {
        self.finish();
        let Self { wish, mut task } = self;
        let (ended, cut_short) = tokio::select! {
            ended = &mut task => (ended, false),
            () = impatience => {
                wish.send_replace(Wish::Die);
                (task.await, true)
            }
        };
        let returned = ended.inspect_err(|error| tracing::error!(%error, "a task that serves failed"));
        (returned.ok(), cut_short)
    }
}
