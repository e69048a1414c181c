//! The QUIC endpoint: iroh's, with this program's limits.

use super::super::id::{Address, Contact};
use super::super::wire::ALPN;
use iroh::endpoint::{BindOpts, Connection, QuicTransportConfig, presets};
use iroh::tls::CaTlsConfig;
use iroh::{Endpoint, EndpointAddr, RelayMap, RelayMode, RelayUrl, SecretKey, TransportAddr};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Streams that somebody may open who was not let in yet: the one with its hello, and one with a task, which is looked at
/// when it was let in.
const STREAMS_BEFORE: u32 = 2;

/// Streams that go one way of the same: the one for control, which it may open early.
const ONE_WAY_BEFORE: u32 = 1;

/// Bytes that one stream may have on its way: at 80 ms there and back, 50 MB a second.
const STREAM_WINDOW: u32 = 4 << 20;

/// Bytes that all streams of a member may have on their way together.
const WINDOW: u32 = 16 << 20;

/// The same of somebody who was not let in yet, who says no more than a hello: what is not read is kept in memory.
const WINDOW_BEFORE: u32 = 64 << 10;

/// A connection without a sign of life for so long has ended. Members notice sooner, by gossip.
const IDLE: Duration = Duration::from_secs(10);

/// How often a sign of life is sent where nothing else is.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// A path without a sign of life for so long (or three times its RTT with all that delays it, if that is longer) is given
/// up where another is left; relays get more time. It is short of what members have to object to their death, so that
/// they still can: iroh's own 15 s are for those who have nobody that declares them dead. An only path is kept.
const PATH_IDLE: Duration = Duration::from_millis(500);

/// How often a sign of life is sent on a direct path for that, where a relay would be left: twice within the time.
pub(super) const BEAT: Duration = Duration::from_millis(200);

/// Direct addresses that come before a relay.
const DIRECT_FIRST: usize = 4;

/// Relays that carry what cannot go directly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Relays {
    /// Those of number 0, who make iroh, and their address book.
    #[default]
    Public,
    /// These.
    Own(Vec<RelayUrl>),
    /// None: only who has a direct path is reached.
    None,
}

/// What an endpoint is to be.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// Who it is.
    pub key: SecretKey,
    /// Its relays.
    pub relays: Relays,
    /// Its UDP port; none: that of the last run if it is free, else any.
    pub port: Option<u16>,
    /// The UDP port of the last run.
    pub last_port: Option<u16>,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The port is taken, or forbidden.
    #[error(
        "the UDP port {port} cannot be opened: {cause}; choose another with --bind-port, or leave it out"
    )]
    Port {
        /// The port.
        port: u16,
        /// What the system says.
        cause: String,
    },
    /// Something else.
    #[error("no UDP port can be opened for the mesh: {cause}; --no-mesh serves this machine alone")]
    Other {
        /// What the system says.
        cause: String,
    },
}

/// Opens it.
///
/// # Errors
/// Where its port is not to be had.
pub async fn bind(options: &EndpointOptions) -> Result<Endpoint, EndpointError> {
    if let Some(port) = options.port {
        return bind_to(options, port)
            .await
            .map_err(|cause| EndpointError::Port { port, cause });
    }
    // Others may know this node by it only.
    if let Some(port) = options.last_port
        && let Ok(endpoint) = bind_to(options, port).await
    {
        return Ok(endpoint);
    }
    bind_to(options, 0)
        .await
        .map_err(|cause| EndpointError::Other { cause })
}

async fn bind_to(options: &EndpointOptions, port: u16) -> Result<Endpoint, String> {
    let builder = match &options.relays {
        Relays::Public => Endpoint::builder(presets::N0),
        Relays::Own(urls) => {
            let map: RelayMap = urls.iter().cloned().collect();
            let builder = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Custom(map));
            builder.ca_tls_config(trusted())
        }
        Relays::None => Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled),
    };
    let not_required = BindOpts::default().set_is_required(false);
    let builder = builder
        .secret_key(options.key.clone())
        .alpns(vec![ALPN.to_vec()])
        .transport_config(transport())
        .proxy_from_env()
        .bind_addr((Ipv4Addr::UNSPECIFIED, port))
        .and_then(|builder| builder.bind_addr_with_opts((Ipv6Addr::UNSPECIFIED, port), not_required))
        .map_err(|error| error.to_string())?;
    builder.bind().await.map_err(|error| format!("{error:#}"))
}

/// Who may vouch for a relay of the user's own: those whom all programs of this machine trust, beside those whom browsers do.
fn trusted() -> CaTlsConfig {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate of this machine cannot be read");
    }
    CaTlsConfig::embedded().with_extra_roots(native.certs)
}

fn transport() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(STREAMS_BEFORE.into())
        .max_concurrent_uni_streams(ONE_WAY_BEFORE.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW_BEFORE.into())
        .send_window(u64::from(WINDOW))
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_max_idle_timeout(PATH_IDLE)
        // A constant that is in range.
        .max_idle_timeout(IDLE.try_into().ok())
        .build()
}

/// Lets somebody send as much as a member may.
pub fn widen(connection: &Connection) {
    connection.set_receive_window(WINDOW.into());
}

/// Where this node may be reached, the most likely first. Which of the `relays` is its own it knows some seconds after its start;
/// until then it may be any of them.
pub fn addresses(endpoint: &EndpointAddr, relays: &Relays) -> Vec<Address> {
    let (mut direct, mut relayed) = (Vec::new(), Vec::new());
    for address in &endpoint.addrs {
        match address {
            TransportAddr::Ip(address) => direct.push(Address::Ip(*address)),
            TransportAddr::Relay(url) => relayed.push(Address::Relay(url.to_string())),
            _ => {}
        }
    }
    if let Relays::Own(urls) = relays
        && relayed.is_empty()
    {
        relayed.extend(urls.iter().map(|url| Address::Relay(url.to_string())));
    }
    // IPv4, then IPv6.
    direct.sort();
    relayed.sort();
    // Where there is room for some only, a relay is among them: by that it is reached from everywhere.
    let others = direct.split_off(direct.len().min(DIRECT_FIRST));
    direct.into_iter().chain(relayed).chain(others).collect()
}

/// How iroh wants to hear of a contact. Addresses that make no sense are left out.
pub fn endpoint_address(contact: &Contact) -> EndpointAddr {
    let addresses = contact.addresses.iter().filter_map(|address| match address {
        Address::Ip(address) => Some(TransportAddr::Ip(*address)),
        Address::Relay(url) => url.parse::<RelayUrl>().ok().map(TransportAddr::Relay),
    });
    EndpointAddr::from_parts(contact.node, addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(port: u16) -> TransportAddr {
        TransportAddr::Ip(([192, 0, 2, 1], port).into())
    }

    fn relay(name: &str) -> RelayUrl {
        format!("https://{name}.example").parse().unwrap()
    }

    /// What is told of these addresses: ports, and names of relays.
    fn told(addresses: Vec<TransportAddr>, relays: &Relays) -> String {
        let node = SecretKey::from_bytes(&[1; 32]).public();
        let addresses = super::addresses(&EndpointAddr::from_parts(node, addresses), relays);
        let words = addresses.iter().map(|address| match address {
            Address::Ip(address) => address.port().to_string(),
            Address::Relay(url) => url.clone(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_relay_is_among_the_first_however_many_interfaces_there_are() {
        let many: Vec<TransportAddr> = (1..=9).rev().map(ip).collect();
        let with = [&many[..], &[TransportAddr::Relay(relay("r"))]].concat();
        assert_eq!(
            told(with, &Relays::Public),
            "1 2 3 4 https://r.example/ 5 6 7 8 9"
        );
        assert_eq!(told(vec![ip(2), ip(1)], &Relays::Public), "1 2");
    }

    #[test]
    fn before_a_machine_knows_its_relay_it_names_those_of_its_user() {
        let own = Relays::Own(vec![relay("b"), relay("a")]);
        assert_eq!(told(vec![ip(1)], &own), "1 https://a.example/ https://b.example/");
        let known = vec![ip(1), TransportAddr::Relay(relay("b"))];
        assert_eq!(told(known, &own), "1 https://b.example/");
    }
}
