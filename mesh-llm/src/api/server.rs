//! The port.

use super::forward::{self, Context};
use super::keys::Keys;
use super::own::Own;
use super::places::Routes;
use super::remote::Remotes;
use super::responses_store::Responses;
use crate::exit::Exit;
use crate::http::{self, Shutdown};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A port that is ours.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// Why a port is not ours.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "port {port} on {host} is taken by another program (perhaps another mesh-llm): end that, or choose another port with --port"
    )]
    Taken {
        /// The address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The user may not have it.
    #[error("port {port} is not for this user: choose one above 1023 with --port")]
    Forbidden {
        /// The port.
        port: u16,
    },
    /// The address is not this machine's.
    #[error(
        "{host} is no address of this machine: --host takes 127.0.0.1 for this machine alone, 0.0.0.0 for every machine that reaches it"
    )]
    NotHere {
        /// The address.
        host: String,
    },
    /// Something else.
    #[error("port {port} on {host} cannot be opened: {cause}; choose others with --host and --port")]
    Other {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        cause: io::Error,
    },
}

impl BindError {
    fn new(host: &str, port: u16, cause: io::Error) -> Self {
        let host = host.to_owned();
        match cause.kind() {
            ErrorKind::AddrInUse => Self::Taken { host, port },
            ErrorKind::PermissionDenied => Self::Forbidden { port },
            ErrorKind::AddrNotAvailable => Self::NotHere { host },
            _ => Self::Other { host, port, cause },
        }
    }

    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        Exit::UNAVAILABLE
    }
}

impl Server {
    /// Takes the port.
    pub async fn bind(host: &str, port: u16) -> Result<Server, BindError> {
        let bound = async {
            let listener = TcpListener::bind((host, port)).await?;
            let address = listener.local_addr()?;
            Ok(Server { listener, address })
        };
        bound.await.map_err(|cause| BindError::new(host, port, cause))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests, with what this machine and other nodes serve, on at most so many connections at
    /// once, until it is told to end.
    pub async fn serve(
        self,
        own: Own,
        remotes: watch::Receiver<Remotes>,
        keys: Keys,
        max_connections: usize,
        shutdown: Shutdown,
    ) {
        let context = Context {
            own,
            remotes,
            routes: Routes::default(),
            keys,
            local: self.address.ip().is_loopback(),
            responses: Responses::default(),
        };
        let answer = move |request| forward::answer(context.clone(), request);
        http::serve(self.listener, max_connections, answer, shutdown).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_remedy() {
        let first = Server::bind("127.0.0.1", 0).await.unwrap();
        let error = Server::bind("127.0.0.1", first.address().port())
            .await
            .unwrap_err();
        assert_eq!(error.exit(), Exit::UNAVAILABLE);
        let text = error.to_string();
        assert!(
            text.contains(&first.address().port().to_string()) && text.contains("--port"),
            "{text}"
        );
    }
}
