//! iroh's own relay, on a host of a netlab.
//!
//! A plain one, over HTTP, carries what goes by no direct path. A full one is as those on the internet are: over HTTPS, and
//! with a QUIC port, by which machines learn how they look from outside. Not every user uses all of it.

#![allow(dead_code)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use iroh_relay::defaults::DEFAULT_RELAY_QUIC_PORT;
use iroh_relay::server::{CertConfig, QuicConfig, RelayConfig, Server, ServerConfig, TlsConfig};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::netlab::NetLab;

/// Where it listens.
const PORT: u16 = 3340;

/// Where a full one does.
const TLS_PORT: u16 = 3341;

/// A running relay. It ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    url: String,
    certificate: Option<Certificate>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Who a full one is: it vouches for itself.
#[derive(Debug)]
struct Certificate {
    file: PathBuf,
    _folder: TempDir,
}

impl Relay {
    /// Starts a plain one on a host, and waits until it listens.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(network: &NetLab, host: usize) -> anyhow::Result<Self> {
        let address = SocketAddr::new(network.address(host), PORT);
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(address));
        Self::run(network, host, (format!("http://{address}"), None), config)
    }

    /// Starts a full one on a host, and waits until it listens.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn full(network: &NetLab, host: usize) -> anyhow::Result<Self> {
        let at = |port| SocketAddr::new(network.address(host), port);
        let own = rcgen::generate_simple_self_signed([network.address(host).to_string()])?;
        let folder = TempDir::new()?;
        let file = folder.path().join("relay.pem");
        fs::write(&file, own.cert.pem())?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let provider = rustls::crypto::ring::default_provider();
        let server_config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)?;
        let mut relay = RelayConfig::new(at(PORT));
        relay.tls = Some(TlsConfig::new(at(TLS_PORT), CertConfig::Manual { server_config }));
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        config.quic = Some(QuicConfig::new(at(DEFAULT_RELAY_QUIC_PORT)));
        let certificate = Certificate {
            file,
            _folder: folder,
        };
        let url = format!("https://{}", at(TLS_PORT));
        Self::run(network, host, (url, Some(certificate)), config)
    }

    fn run(
        network: &NetLab,
        host: usize,
        (url, certificate): (String, Option<Certificate>),
        config: ServerConfig,
    ) -> anyhow::Result<Self> {
        let (end, ends) = oneshot::channel();
        let (started, starting) = std::sync::mpsc::channel();
        let thread = network.within(host, || {
            thread::Builder::new()
                .name("relay".to_owned())
                .spawn(move || run(config, &started, ends))
        })?;
        starting.recv().context("the relay's thread ended")??;
        Ok(Self {
            url,
            certificate,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// What `--relay` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate that machines have to trust for a full one.
    pub fn certificate(&self) -> Option<&Path> {
        Some(&self.certificate.as_ref()?.file)
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
    config: ServerConfig,
    started: &std::sync::mpsc::Sender<anyhow::Result<()>>,
    ends: oneshot::Receiver<()>,
) {
    let serve = || -> anyhow::Result<_> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
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
