//! A way from this process's own network to a port of a host, for clients that are not on any.

use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::host::Host;

/// An open door. It closes when it is dropped; what has passed through stays connected.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Door {
    /// To this address as that host sees it.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn open(host: Host, to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let closed = Arc::new(AtomicBool::new(false));
        let its_closed = closed.clone();
        thread::Builder::new()
            .name("netlab door".to_owned())
            .spawn(move || {
                // What this thread connects is on the host; the listener stays where it was made.
                if host.enter().is_err() {
                    return;
                }
                for client in listener.incoming().flatten() {
                    if its_closed.load(Ordering::Acquire) {
                        return;
                    }
                    // A refusal of the host is an end at once, as far as one can tell here.
                    if let Ok(server) = TcpStream::connect(to) {
                        join(client, server);
                    }
                }
            })?;
        Ok(Self { address, closed })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        // The thread waits for a client: this is the last one.
        let _ = TcpStream::connect(self.address);
    }
}

/// Carries bytes both ways, on threads of their own, until both ends have ended.
fn join(client: TcpStream, server: TcpStream) {
    let ways = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
    for (from, to) in ways {
        let (Ok(mut from), Ok(mut to)) = (from, to) else {
            return;
        };
        // Whoever measures does so on the host itself; here only that nothing waits matters.
        let _ = to.set_nodelay(true);
        thread::spawn(move || {
            // An error ends this way like an end does.
            let _ = copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
