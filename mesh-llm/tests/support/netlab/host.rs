//! A network namespace with a device whose packets this process gets.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// As on an Ethernet.
const LONGEST_PACKET: u32 = 1500;

/// A host: its namespace lives as long as one of its clones, or a process in it.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: Arc<File>,
    device: Arc<File>,
}

impl Host {
    /// A host of its own with this address.
    ///
    /// # Errors
    /// Where this user may not make one, or a tool is missing.
    pub fn new(address: Ipv4Addr) -> anyhow::Result<Self> {
        // A thread of its own, which leaves the namespace of all others and does not come back.
        let made = thread::Builder::new()
            .name("netlab host".to_owned())
            .spawn(move || make(address))?;
        made.join().expect("making a host does not panic")
    }

    /// Where its packets are read and written. Reading does not wait.
    pub fn device(&self) -> Arc<File> {
        self.device.clone()
    }

    /// Moves the calling thread there: also the threads and processes that it starts from now on.
    ///
    /// # Errors
    /// Where this user may not.
    pub fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }
}

/// Makes a host; the calling thread stays there.
fn make(address: Ipv4Addr) -> anyhow::Result<Host> {
    // SAFETY: a new network namespace changes nothing that Rust's library or any other thread relies on;
    // only CLONE_FILES and CLONE_FS would.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("no network namespace (it needs root)")?;
    let namespace = File::open("/proc/thread-self/ns/net").context("no /proc/thread-self/ns/net")?;
    let device = open_device().context("no device by /dev/net/tun")?;
    // What routers show to the others is beside the hosts' own addresses.
    let address = format!("{address}/16");
    let mtu = LONGEST_PACKET.to_string();
    for words in [
        &["link", "set", "lo", "up"][..],
        &["addr", "add", &address, "dev", "tun0"],
        &["link", "set", "tun0", "mtu", &mtu, "txqueuelen", "10000", "up"],
    ] {
        ip(words)?;
    }
    Ok(Host {
        namespace: Arc::new(namespace),
        device: Arc::new(device),
    })
}

fn open_device() -> anyhow::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = File::from(open("/dev/net/tun", flags, Mode::empty())?);
    // SAFETY: all zeros are a valid value of this struct of plain integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    ensure!(done >= 0, "TUNSETIFF: {}", io::Error::last_os_error());
    Ok(device)
}

/// Runs iproute2 in the calling thread's namespace.
fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .context("no iproute2")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.join(" "),
        error.trim()
    );
    Ok(())
}
