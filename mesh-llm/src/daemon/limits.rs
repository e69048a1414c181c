//! What the system lets the daemon have.

/// Connections that are served at once, where the system allows for them.
const MAX_CONNECTIONS: usize = 1000;

/// Files that the daemon has open besides connections.
#[cfg(unix)]
const OTHER_FILES: u64 = 64;

/// Files that a connection takes: one to the client, one to the engine.
#[cfg(unix)]
const FILES_PER_CONNECTION: u64 = 2;

/// Raises the limit of open files as far as it is needed, and says for how many connections it is
/// enough.
#[cfg(unix)]
pub(super) fn connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let needed = OTHER_FILES + FILES_PER_CONNECTION * MAX_CONNECTIONS as u64;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed))),
        ..limit
    };
    let too_low = limit.current.is_some_and(|current| current < needed);
    let was_raised = too_low && setrlimit(Resource::Nofile, raised).is_ok();
    connections_for(if was_raised { raised.current } else { limit.current })
}

/// Windows has no such limit.
#[cfg(not(unix))]
pub(super) fn connections() -> usize {
    MAX_CONNECTIONS
}

#[cfg(unix)]
fn connections_for(files: Option<u64>) -> usize {
    let for_connections = files.map_or(u64::MAX, |files| files.saturating_sub(OTHER_FILES));
    usize::try_from(for_connections / FILES_PER_CONNECTION)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_CONNECTIONS)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_files_allow() {
        assert_eq!(connections_for(None), MAX_CONNECTIONS);
        assert_eq!(connections_for(Some(1024)), 480);
        assert_eq!(connections_for(Some(10)), 1);
        assert_eq!(connections_for(Some(1 << 20)), MAX_CONNECTIONS);
    }
}
