//! iroh's own relay, on a host of a netlab, over plain HTTP.
//!
//! It carries what goes by no direct path, as those on the internet do; it has no QUIC port, by which machines learn how
//! they look from outside. Not every user uses all of it.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use anyhow::Context;
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::netlab::NetLab;

/// Where it listens.
const PORT: u16 = 3340;

/// A running relay. It ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    url: String,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts it on a host, and waits until it listens.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(network: &NetLab, host: usize) -> anyhow::Result<Self> {
        let address = SocketAddr::new(network.address(host), PORT);
        let (end, ends) = oneshot::channel();
        let (started, starting) = std::sync::mpsc::channel();
        let thread = network.within(host, || {
            thread::Builder::new()
                .name("relay".to_owned())
                .spawn(move || run(address, &started, ends))
        })?;
        starting.recv().context("the relay's thread ended")??;
        Ok(Self {
            url: format!("http://{address}"),
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// What `--relay` takes.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell, and a drop must not panic.
            let _ = thread.join();
        }
    }
}

/// Serves on the calling thread until the other end of `ends` is dropped.
fn run(
    address: SocketAddr,
    started: &std::sync::mpsc::Sender<anyhow::Result<()>>,
    ends: oneshot::Receiver<()>,
) {
    let serve = || -> anyhow::Result<_> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(address));
        let server = runtime.block_on(Server::spawn(config))?;
        Ok((runtime, server))
    };
    match serve() {
        Ok((runtime, server)) => {
            // Whoever waits has the handle that would end it: it hears this.
            let _ = started.send(Ok(()));
            // Nothing is ever sent: it is dropped.
            let _ = runtime.block_on(ends);
            drop(server);
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
}
