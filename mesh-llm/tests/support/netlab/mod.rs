//! Several hosts on one machine with a real network between them: network namespaces joined by a switch
//! in user space, which adds delay, loss, a rate limit and cuts.
//!
//! Nothing has a name and nothing is left behind: a namespace is held by a file descriptor, so that it and
//! its device end with the process (and with what runs inside), however that dies, and every lab has the
//! same addresses as any other beside it. It needs root, iproute2 and `/dev/net/tun`, and no kernel
//! traffic control. Threads and processes started in [`NetLab::within`] are on that host.
//!
//! It knows nothing of what runs on the hosts. Not every user uses all of it.

#![allow(dead_code)]

mod door;
mod host;
mod routers;
mod rules;
mod switch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use host::Host;
use routers::Routers;
use rules::Rules;
use switch::Switch;

pub use door::Door;
pub use rules::Traffic;

/// Hosts of a lab, at most: all are in one network of 256 addresses.
const MOST_HOSTS: usize = 200;

/// Why there can be no lab on this machine, if that is so.
static MISSING: LazyLock<Option<String>> =
    LazyLock::new(|| NetLab::start(1).err().map(|error| format!("{error:#}")));

/// Hosts, counted from 0, and the network between them. All of it goes when this is dropped, but what
/// still runs on a host keeps that host, then alone.
#[derive(Debug)]
pub struct NetLab {
    hosts: Vec<Host>,
    rules: Arc<Mutex<Rules>>,
    routers: Arc<Mutex<Routers>>,
    _switch: Switch,
}

impl NetLab {
    /// Whether there can be labs on this machine; says so where there can't.
    pub fn available(wanted_by: &str) -> bool {
        if let Some(reason) = MISSING.as_deref() {
            eprintln!("SKIPPED: {wanted_by}: no network of its own on this machine: {reason}");
        }
        MISSING.is_none()
    }

    /// Starts so many hosts, with nothing between them but the switch.
    ///
    /// # Errors
    /// Where this user may not, or a tool is missing.
    pub fn start(hosts: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(hosts <= MOST_HOSTS, "there are at most {MOST_HOSTS} hosts");
        let rules = Arc::new(Mutex::new(Rules::new(hosts)));
        let hosts = (0..hosts)
            .map(|host| Host::new(ipv4(host)).with_context(|| format!("host {host}")))
            .collect::<anyhow::Result<Vec<Host>>>()?;
        let devices = hosts.iter().map(Host::device).collect();
        let routers = Arc::new(Mutex::new(Routers::default()));
        let switch = Switch::start(devices, rules.clone(), routers.clone())?;
        Ok(Self {
            hosts,
            rules,
            routers,
            _switch: switch,
        })
    }

    /// The address of a host for the others.
    pub fn address(&self, host: usize) -> IpAddr {
        ipv4(host).into()
    }

    /// Runs something on a host. The processes and threads that it starts, and the sockets that it opens,
    /// stay there.
    pub fn within<T: Send>(&self, host: usize, run: impl FnOnce() -> T + Send) -> T {
        let host = &self.hosts[host];
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                host.enter().expect("the namespace was entered before");
                run()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A port of this process's own network that leads to one of a host, not through the switch.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn door(&self, host: usize, port: u16) -> anyhow::Result<Door> {
        Door::open(
            self.hosts[host].clone(),
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        )
    }

    /// Sets the round-trip time between all hosts.
    pub fn set_rtt(&self, rtt: Duration) {
        self.rules().set_rtt(rtt);
    }

    /// Sets the round-trip time between two hosts.
    pub fn set_rtt_between(&self, one: usize, other: usize, rtt: Duration) {
        self.rules().set_rtt_between(one, other, rtt);
    }

    /// Loses this share of all packets.
    pub fn set_loss(&self, share: f64) {
        self.rules().set_loss(share);
    }

    /// Limits what each host sends; without a limit it is as fast as the switch.
    pub fn set_rate(&self, bits_per_second: Option<f64>) {
        self.rules().set_rate(bits_per_second);
    }

    /// Loses every packet from and to a host, also those on their way, until it is healed.
    pub fn cut(&self, host: usize) {
        self.rules().set_cut(host, true);
    }

    /// Ends a cut.
    pub fn heal(&self, host: usize) {
        self.rules().set_cut(host, false);
    }

    /// Loses every packet between two hosts, until that is taken back: each still reaches the others.
    pub fn set_apart(&self, one: usize, other: usize, apart: bool) {
        self.rules().set_apart(one, other, apart);
    }

    /// Puts a host behind a router of its own, from now on: it reaches all that are behind none, and nobody reaches it but
    /// whom it spoke to, at the port that it spoke from.
    pub fn put_behind_router(&self, host: usize) {
        let mut routers = self.routers.lock().unwrap_or_else(PoisonError::into_inner);
        routers.add(host);
    }

    /// The address by which others see a host behind a router.
    pub fn public_address(&self, host: usize) -> IpAddr {
        routers::public(host).into()
    }

    /// What one host sent to another so far, what was lost included.
    pub fn traffic(&self, from: usize, to: usize) -> Traffic {
        self.rules().traffic(from, to)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        // Each change is one assignment: no panic leaves it half made.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address of a host. All labs have the same ones: their networks do not meet.
fn ipv4(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, rules::last_byte(host))
}
