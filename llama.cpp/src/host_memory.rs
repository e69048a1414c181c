//! The memory of this machine, or of the container that this program runs in.

use sysinfo::System;

/// Bytes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// All that there is.
    pub total: u64,
    /// What programs can still have.
    pub available: u64,
}

impl HostMemory {
    /// What there is now. None where the system does not say.
    pub fn now() -> Option<Self> {
        let mut system = System::new().ok()?;
        system.refresh_memory();
        let (total, available) = (system.total_memory(), system.available_memory());
        Some(match system.cgroup_limits() {
            Some(limits) => Self {
                total: total.min(limits.total_memory),
                // What is free of it would not count what the system gives back: files that were read.
                available: available.min(limits.total_memory.saturating_sub(limits.rss)),
            },
            None => Self { total, available },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_what_there_is() {
        let memory = HostMemory::now().unwrap();
        assert!(memory.total > 0 && memory.available <= memory.total, "{memory:?}");
    }
}
