//! What of this machine's memories a model may take.

use super::options::Options;
use super::placed::choose_devices;
use crate::host_memory::HostMemory;
use crate::llama::{Device, HOST};

/// Memory of a host or device that is left to others, in bytes.
const MARGIN: u64 = 512 << 20;

/// Bytes of the host's memory that can be had.
pub(crate) fn free_host_memory() -> u64 {
    // Where the system does not say, nothing is refused for it.
    HostMemory::now().map_or(u64::MAX, |memory| memory.available.saturating_sub(MARGIN))
}

/// Bytes of each of these GPUs that can be had: what is free, and `most` of all together. Of those that share the
/// host's memory, no more than `host`.
pub(crate) fn free_of_gpus(gpus: &[Device], most: Option<u64>, host: u64) -> Vec<u64> {
    let free = gpus.iter().map(|gpu| {
        let free = gpu.free.saturating_sub(MARGIN);
        if gpu.shares_memory { free.min(host) } else { free }
    });
    capped(&free.collect::<Vec<_>>(), most)
}

/// In proportion to what is free: so llama.cpp divides layers.
fn capped(free: &[u64], most: Option<u64>) -> Vec<u64> {
    let all = free.iter().map(|free| u128::from(*free)).sum::<u128>().max(1);
    let most = most.map_or(all, u128::from).min(all);
    // No more than what is free.
    let part = |free: &u64| (u128::from(*free) * most / all) as u64;
    free.iter().map(part).collect()
}

/// What a model may take, by the names that llama.cpp gives memories.
#[derive(Debug, Clone)]
pub(super) struct Room {
    host: u64,
    gpus: Vec<(String, u64)>,
}

impl Room {
    /// What there is now, within what the options say.
    pub(super) fn now(options: &Options) -> Self {
        // Where one is named that is not there, nothing is loaded.
        let gpus = choose_devices(options).unwrap_or_default();
        let host = free_host_memory().min(options.max_memory.unwrap_or(u64::MAX));
        let free = free_of_gpus(&gpus, options.max_vram, host);
        Self {
            host,
            gpus: gpus.into_iter().map(|gpu| gpu.name).zip(free).collect(),
        }
    }

    /// Bytes of this memory: [`HOST`], or a GPU's.
    pub(super) fn of(&self, name: &str) -> u64 {
        if name == HOST {
            return self.host;
        }
        let mut gpus = self.gpus.iter();
        gpus.find(|(gpu, _)| gpu == name).map_or(0, |(_, free)| *free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_used_up_to_the_most_of_all_together() {
        assert_eq!(capped(&[10, 20], None), [10, 20]);
        assert_eq!(capped(&[10, 20], Some(15)), [5, 10]);
        assert_eq!(capped(&[10, 20], Some(99)), [10, 20]);
        assert_eq!(capped(&[0, u64::MAX], Some(u64::MAX)), [0, u64::MAX]);
    }

    #[test]
    fn a_memory_that_is_not_there_has_no_room() {
        let room = Room {
            host: 5,
            gpus: vec![("CUDA0".into(), 3)],
        };
        assert_eq!([HOST, "CUDA0", "CUDA1"].map(|name| room.of(name)), [5, 3, 0]);
    }
}
