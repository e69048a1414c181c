//! The two ways in, each with limits of its own: strangers at the port cannot keep the owner out.

use super::command::Command;
use super::exchange::{self, Context};
use super::status::{Status, Viewer};
use crate::exit::Exit;
use crate::http::{self, End, Listener, Shutdown};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The port where the console is looked for.
pub const DEFAULT_CONSOLE_PORT: u16 = 3131;

/// Connections by one way at once; others wait.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Streams of events by one way at once; others are refused, so that some connections stay for requests.
pub(super) const MAX_STREAMS: usize = 32;

/// How long answers that are on their way may take once the daemon ends.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// Whether there is a console, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Console {
    /// At [`DEFAULT_CONSOLE_PORT`], or at any other port where that is taken.
    #[default]
    Default,
    /// At this port and no other; 0 takes any free one.
    Port(u16),
    /// Nowhere.
    Off,
}

/// Why the management API cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port that was asked for.
    #[error(
        "the console's port {port} is taken by another program (perhaps another mesh-llm): end that, choose another port with --console, or do without it (--no-console)"
    )]
    Taken {
        /// The port.
        port: u16,
    },
    /// The system does not give the port.
    #[error(
        "the console's port {port} cannot be opened: {cause}; choose another one with --console, or do without it (--no-console)"
    )]
    Console {
        /// The port.
        port: u16,
        /// What the system says.
        cause: io::Error,
    },
    /// The socket cannot be made.
    #[error("the socket {} cannot be made: {cause}; set MESH_LLM_HOME to a folder on a local disk", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl BindError {
    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        Exit::UNAVAILABLE
    }
}

/// The management API before it answers.
#[derive(Debug)]
pub struct Manage {
    #[cfg(unix)]
    socket: UnixListener,
    console: Option<(TcpListener, SocketAddr)>,
    moved: bool,
}

impl Manage {
    /// Takes the console's port, and makes the socket, which is to be in a folder that only this user can
    /// enter. Where there are no Unix sockets, there is the console alone.
    pub async fn bind(console: Console, socket: &Path) -> Result<Manage, BindError> {
        let bound = match console {
            Console::Off => None,
            Console::Port(port) => Some(
                port_of_this_machine(port)
                    .await
                    .map_err(|cause| refused(port, cause))?,
            ),
            Console::Default => Some(default_port(DEFAULT_CONSOLE_PORT).await?),
        };
        let moved = matches!((console, &bound), (Console::Default, Some((_, at))) if at.port() != DEFAULT_CONSOLE_PORT);
        #[cfg(not(unix))]
        let _ = socket;
        Ok(Manage {
            #[cfg(unix)]
            socket: UnixListener::bind(socket).map_err(|cause| BindError::Socket {
                path: socket.to_owned(),
                cause,
            })?,
            console: bound,
            moved,
        })
    }

    /// Where the console is, if there is one.
    pub fn console(&self) -> Option<SocketAddr> {
        self.console.as_ref().map(|(_, address)| *address)
    }

    /// What the user should know: that the console is not where it is looked for.
    pub fn warning(&self) -> Option<String> {
        let port = self.console().filter(|_| self.moved)?.port();
        Some(format!(
            "warning: port {DEFAULT_CONSOLE_PORT} is taken by another program (perhaps another mesh-llm); the console is at http://localhost:{port} this time; --console chooses a port for good"
        ))
    }

    /// Begins to answer: shows `status`, and passes orders on.
    pub fn start(self, status: watch::Receiver<Status>, commands: mpsc::Sender<Command>) -> Running {
        let (open, closing) = watch::channel(());
        let context = |viewer| Context {
            status: status.clone(),
            commands: commands.clone(),
            viewer,
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            open: closing.clone(),
        };
        let mut running = Running {
            served: JoinSet::new(),
            ends: Vec::new(),
            open,
        };
        #[cfg(unix)]
        running.serve(self.socket, context(Viewer::Owner));
        if let Some((listener, _)) = self.console {
            running.serve(listener, context(Viewer::Anybody));
        }
        running
    }
}

async fn port_of_this_machine(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// The port that nobody chose: where another program has it, any other will do.
async fn default_port(port: u16) -> Result<(TcpListener, SocketAddr), BindError> {
    match port_of_this_machine(port).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => port_of_this_machine(0).await,
        bound => bound,
    }
    .map_err(|cause| refused(port, cause))
}

fn refused(port: u16, cause: io::Error) -> BindError {
    match cause.kind() {
        ErrorKind::AddrInUse => BindError::Taken { port },
        _ => BindError::Console { port, cause },
    }
}

/// The management API while it answers. Dropping it breaks everything off.
#[derive(Debug)]
pub struct Running {
    served: JoinSet<()>,
    ends: Vec<End>,
    /// Dropped so that streams of events end.
    open: watch::Sender<()>,
}

impl Running {
    fn serve(&mut self, listener: impl Listener, context: Context) {
        let (end, shutdown) = Shutdown::when_told();
        self.ends.push(end);
        let answer = move |request| exchange::answer(context.clone(), request);
        self.served
            .spawn(http::serve(listener, MAX_CONNECTIONS, answer, shutdown));
    }

    /// Takes no new connections, ends the streams of events, and lets other answers be sent, for a second
    /// at most.
    pub async fn finish(mut self) {
        drop(self.open);
        let cuts: Vec<_> = self
            .ends
            .into_iter()
            .map(|end| {
                // The server listens as long as it runs.
                let _ = end.drain.send(());
                end.cut
            })
            .collect();
        let all = async { while self.served.join_next().await.is_some() {} };
        if timeout(FINISH_WITHIN, all).await.is_err() {
            drop(cuts);
            while self.served.join_next().await.is_some() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_was_asked_for_is_had_or_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = other.local_addr().unwrap().port();
        let error = Manage::bind(Console::Port(port), &folder.path().join("s"))
            .await
            .unwrap_err();
        assert_eq!(error.exit(), Exit::UNAVAILABLE);
        let text = error.to_string();
        assert!(
            text.contains(&port.to_string()) && text.contains("--console"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_port_that_nobody_chose_gives_way() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let taken = other.local_addr().unwrap();
        let (_listener, address) = default_port(taken.port()).await.unwrap();
        assert_ne!(address.port(), taken.port());
        assert_eq!(address.ip(), taken.ip());
    }

    #[tokio::test]
    async fn nobody_has_to_have_a_console() {
        let folder = tempfile::tempdir().unwrap();
        let manage = Manage::bind(Console::Off, &folder.path().join("s"))
            .await
            .unwrap();
        assert_eq!((manage.console(), manage.warning()), (None, None));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_socket_that_cannot_be_made_is_told_with_its_path() {
        let error = Manage::bind(Console::Off, Path::new("/no/such/folder/s"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/s"), "{error}");
    }
}
