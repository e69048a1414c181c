//! Standard error, owned by one thread.
//!
//! Whoever reads it may stop to (a terminal on Ctrl-S, a full pipe); that must not stop those who
//! serve requests. So nobody but this thread writes, and what it cannot keep up with is dropped.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written.
const MAX_WAITING: usize = 1024;

/// How long the end of the program waits for what is still to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Clears a terminal's line.
const CLEAR: &[u8] = b"\r\x1b[K";

/// A way to write to standard error; clones lead to the same thread.
#[derive(Debug, Clone)]
pub(super) struct Console {
    sender: SyncSender<Message>,
    terminal: bool,
}

#[derive(Debug)]
enum Message {
    /// A line that stays.
    Line(Vec<u8>),
    /// A line that the next message replaces.
    Passing(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl Console {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Console> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let write = move || write_all(&receiver, &mut io::stderr());
        std::thread::Builder::new()
            .name("console".to_owned())
            .stack_size(64 << 10)
            .spawn(write)?;
        Ok(Console {
            sender,
            terminal: io::stderr().is_terminal(),
        })
    }

    /// Whether a person looks on.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line.
    pub(super) fn line(&self, line: impl Into<Vec<u8>>) {
        // Where a thousand lines wait, this one is lost.
        let _ = self.sender.try_send(Message::Line(line.into()));
    }

    /// Writes a line that the next one replaces; for terminals.
    pub(super) fn passing(&self, line: impl Into<Vec<u8>>) {
        let _ = self.sender.try_send(Message::Passing(line.into()));
    }

    /// Waits, not for ever, until everything is written.
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        let sender = self.sender.clone();
        // There may be no room for the message either. At the end of the program, a thread that
        // waits for some harms nobody.
        std::thread::spawn(move || sender.send(Message::Flush(done)));
        let _ = wait.recv_timeout(FLUSH_WITHIN);
    }
}

fn write_all(messages: &Receiver<Message>, to: &mut impl Write) {
    let mut passing = false;
    for message in messages {
        let mut bytes = if passing { CLEAR.to_vec() } else { Vec::new() };
        let answer = match message {
            Message::Line(line) => {
                bytes.extend(line);
                bytes.push(b'\n');
                passing = false;
                None
            }
            Message::Passing(line) => {
                bytes.extend(line);
                passing = true;
                None
            }
            Message::Flush(done) => {
                passing = false;
                Some(done)
            }
        };
        // Nobody is left to be told of an error here.
        let _ = to.write_all(&bytes).and_then(|()| to.flush());
        if let Some(done) = answer {
            let _ = done.try_send(());
        }
    }
}

/// For `tracing`, which writes each event at once.
impl<'a> MakeWriter<'a> for Console {
    type Writer = &'a Console;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_line_gives_way_to_the_next() {
        let (sender, receiver) = sync_channel(8);
        for message in [
            Message::Passing(b"1 %".to_vec()),
            Message::Passing(b"2 %".to_vec()),
            Message::Line(b"done".to_vec()),
            Message::Line(b"more".to_vec()),
        ] {
            sender.send(message).unwrap();
        }
        drop(sender);
        let mut written = Vec::new();
        write_all(&receiver, &mut written);
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "1 %\r\x1b[K2 %\r\x1b[Kdone\nmore\n"
        );
    }
}
