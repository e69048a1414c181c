//! A process that a test started.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;
use super::proc::{Known, children};

/// The lines of an output so far.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    /// Takes everything in, on a thread of its own: a full pipe must never stop a process.
    fn follow(output: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                writer
                    .lines
                    .lock()
                    .unwrap()
                    .lines
                    .push(String::from_utf8_lossy(&line).into_owned());
                writer.changed.notify_all();
            }
            writer.lines.lock().unwrap().ended = true;
            writer.changed.notify_all();
        });
        log
    }

    /// Waits until `find` finds something in the lines; none where the output ends before that.
    ///
    /// # Panics
    /// Where `within` is over first.
    pub fn find<T>(&self, within: Duration, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + within;
        let mut guard = self.lines.lock().unwrap();
        loop {
            let found = find(&guard.lines);
            if found.is_some() || guard.ended {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lines = guard.lines.join("\n");
                // Who unwinds looks at them again.
                drop(guard);
                panic!("after {within:?} there is only:\n{lines}");
            }
            guard = self.changed.wait_timeout(guard, left).unwrap().0;
        }
    }

    /// Waits until `find` finds something in the lines, as it must.
    pub fn wait_for<T>(&self, what: &str, within: Duration, find: impl Fn(&[String]) -> Option<T>) -> T {
        let found = self.find(within, find);
        found.unwrap_or_else(|| panic!("no {what} in:\n{}", self.so_far().join("\n")))
    }

    /// Waits for a line that contains `words`, and returns it.
    pub fn line(&self, words: &str, within: Duration) -> String {
        self.wait_for(words, within, |lines| {
            lines.iter().find(|line| line.contains(words)).cloned()
        })
    }

    /// All lines, once there can be no more.
    pub fn all(&self, within: Duration) -> Vec<String> {
        self.find(within, |_| None::<()>);
        self.so_far()
    }

    /// The lines so far.
    pub fn so_far(&self) -> Vec<String> {
        self.lines.lock().unwrap().lines.clone()
    }
}

/// A process and its output. It is killed when the test drops it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its standard output.
    pub out: Arc<Log>,
    /// Its standard error.
    pub err: Arc<Log>,
}

impl Process {
    /// Starts it, without input where `command` does not say otherwise.
    pub fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(command)
    }

    /// Starts it with the streams that `command` has; those that are no pipes have no lines.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = child.stdout.take().map_or_else(Arc::default, Log::follow);
        let err = child.stderr.take().map_or_else(Arc::default, Log::follow);
        Self { child, out, err }
    }

    /// Its number.
    pub fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its children.
    pub fn children(&self) -> Vec<Known> {
        children(self.id())
    }

    /// Its input, if that is a pipe: closed when it is dropped.
    pub fn take_input(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        eventually("the process ends", within, || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "-- standard error of {}:\n{}",
                self.child.id(),
                self.err.so_far().join("\n")
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
