//! What this machine has for models, and how much of it they may take.

use super::super::settings::EngineSettings;
use crate::engine::{self, Program};
use crate::mesh::state::{Device, Gpus, Memory};
use llama_engine::host_memory::HostMemory;
use llama_engine::rpc::devices::{DeviceReport, MemoryKind};
use llama_engine::rpc::wire::MOST_QUEUES;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use tokio::sync::watch;

/// The device of a machine that nothing else is known of.
const CPU: &str = "CPU";

/// What its user lets models take at most, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    /// Of the machine's own memory.
    memory: Option<u64>,
    /// Of all GPUs together.
    vram: Option<u64>,
}

impl Limits {
    /// What the settings say.
    fn of(settings: &EngineSettings) -> Self {
        Self {
            memory: settings.max_memory,
            vram: settings.max_vram,
        }
    }
}

/// A machine, as models see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct Machine {
    /// Bytes of all its memories.
    total: u64,
    /// Bytes of its own memory that models may take.
    pub(super) host: u64,
    /// Bytes of GPUs' own memory that they may take.
    vram: u64,
    /// What of both is on GPUs, if that is known.
    gpus: Option<Gpus>,
    /// Bytes a second that its processor reads, if that was measured.
    pub(super) bandwidth: Option<u64>,
    /// What it computes with.
    pub(super) devices: Vec<Device>,
}

impl Machine {
    /// A machine with so much memory of its own, and with these devices, if anything is known of them.
    fn new(memory: u64, known: Option<&[DeviceReport]>, limits: Limits) -> Self {
        let reports = known.unwrap_or_default();
        let host = limits.memory.unwrap_or(u64::MAX).min(memory);
        let bytes = |kind: MemoryKind| {
            let of_kind = reports.iter().filter(|report| report.memory == kind);
            of_kind.map(|report| report.total).sum::<u64>()
        };
        let most = limits.vram.unwrap_or(u64::MAX);
        let vram = bytes(MemoryKind::Own).min(most);
        // What GPUs share with the processor is counted once.
        let shared = bytes(MemoryKind::Shared).min(host).min(most - vram);
        let devices = reports.iter().map(|report| Device {
            name: report.name.clone(),
            memory_bytes: match report.memory {
                MemoryKind::Host => memory,
                MemoryKind::Shared | MemoryKind::Own => report.total,
            },
        });
        let mut devices: Vec<Device> = devices.collect();
        if devices.is_empty() {
            devices.push(Device {
                name: CPU.to_owned(),
                memory_bytes: memory,
            });
        }
        let processor = reports.iter().find(|report| report.memory == MemoryKind::Host);
        Self {
            total: memory.saturating_add(bytes(MemoryKind::Own)),
            host,
            vram,
            gpus: known.map(|_| Gpus {
                offered_bytes: vram.saturating_add(shared),
                bandwidth: bandwidth_of_gpus(reports),
            }),
            bandwidth: processor.and_then(|report| report.bandwidth),
            devices,
        }
    }

    /// What it offers, as others are told.
    pub(super) fn memory(&self) -> Memory {
        Memory {
            total_bytes: self.total,
            offered_bytes: self.host.saturating_add(self.vram),
        }
    }

    /// What of it is on GPUs, as others are told.
    pub(super) fn gpus(&self) -> Gpus {
        self.gpus.unwrap_or_default()
    }

    /// Names of the devices that it lends: as many as hosts take of a worker, the processor among them.
    pub(super) fn lent_devices(&self) -> Vec<String> {
        let beyond = self.devices.len().saturating_sub(MOST_QUEUES);
        let devices = self.devices.iter().skip(beyond);
        devices.map(|device| device.name.clone()).collect()
    }

    /// Bytes of its own memory that are left where so many are taken of all: GPUs' first.
    pub(in crate::daemon) fn memory_beside(&self, taken: u64) -> u64 {
        self.host.saturating_sub(taken.saturating_sub(self.vram))
    }

    /// Bytes of GPUs that are left likewise; no limit where it is not known what they have.
    pub(in crate::daemon) fn gpus_beside(&self, taken: u64) -> u64 {
        let gpus = self.gpus.map(|gpus| gpus.offered_bytes.saturating_sub(taken));
        gpus.unwrap_or(u64::MAX)
    }
}

/// Bytes a second that one GPU after the other reads; 0 if that of one is not known.
fn bandwidth_of_gpus(reports: &[DeviceReport]) -> u64 {
    let gpus = reports.iter().filter(|report| report.memory != MemoryKind::Host);
    let (mut bytes, mut seconds) = (0.0, 0.0);
    for gpu in gpus {
        let Some(bandwidth) = gpu.bandwidth.filter(|rate| *rate > 0) else {
            return 0;
        };
        bytes += gpu.total as f64;
        seconds += gpu.total as f64 / bandwidth as f64;
    }
    if seconds > 0.0 {
        (bytes / seconds) as u64
    } else {
        0
    }
}

/// What is known of this machine before anybody was asked; none: nothing yet, for it may have GPUs.
pub(super) fn at_first(program: Option<&Program>, settings: &EngineSettings) -> Option<Machine> {
    let may_have_gpus = program.is_some_and(Program::may_have_gpus);
    (!may_have_gpus).then(|| Machine::new(built_in(), Some(&[]), Limits::of(settings)))
}

/// What this machine is where nobody plans with it.
pub(super) fn alone(settings: &EngineSettings) -> Machine {
    Machine::new(built_in(), None, Limits::of(settings))
}

/// Bytes of memory that this machine has, its GPUs' own not counted.
fn built_in() -> u64 {
    HostMemory::now().map_or(0, |memory| memory.total)
}

/// Says what this machine is, once it is measured: while that takes memory of GPUs, engines would see less of it free.
pub(super) async fn follow(
    program: Program,
    settings: EngineSettings,
    machine: watch::Sender<Option<Machine>>,
) {
    let (memory, limits) = (built_in(), Limits::of(&settings));
    let names = match settings.gpu_layers {
        Some(0) => vec![CPU.to_owned()],
        _ => settings.devices,
    };
    let mut known = None;
    let tell = |reports: Vec<DeviceReport>| {
        known = Some(reports);
        ControlFlow::Continue(())
    };
    let asked = engine::devices::ask(&program, &names, settings.threads.map(Into::into), tell).await;
    if let Err(error) = asked {
        let message = "what this machine computes with is not wholly known: it lends nothing to others";
        match (&program, error.kind()) {
            // `--bin-dir` has no program for that.
            (Program::At(_), ErrorKind::NotFound) => tracing::debug!(%error, "{message}"),
            _ => tracing::warn!(%error, "{message}"),
        }
    }
    machine.send_replace(Some(Machine::new(memory, known.as_deref(), limits)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn device(name: &str, memory: MemoryKind, gigabytes: u64, bandwidth: u64) -> DeviceReport {
        DeviceReport {
            name: name.to_owned(),
            description: String::new(),
            memory,
            total: gigabytes * GB,
            free: 0,
            bandwidth: Some(bandwidth * GB),
        }
    }

    fn gpu(name: &str, gigabytes: u64, bandwidth: u64) -> DeviceReport {
        device(name, MemoryKind::Own, gigabytes, bandwidth)
    }

    fn cpu() -> DeviceReport {
        device(CPU, MemoryKind::Host, 1, 50)
    }

    fn limits(memory: Option<u64>, vram: Option<u64>) -> Limits {
        let bytes = |gigabytes: Option<u64>| gigabytes.map(|gigabytes| gigabytes * GB);
        Limits {
            memory: bytes(memory),
            vram: bytes(vram),
        }
    }

    fn beside(machine: &Machine, gigabytes: u64) -> (u64, u64) {
        let taken = gigabytes * GB;
        (machine.memory_beside(taken), machine.gpus_beside(taken))
    }

    #[test]
    fn where_gpus_are_not_known_their_users_limit_stays() {
        let machine = Machine::new(32 * GB, None, limits(None, Some(20)));
        assert_eq!(beside(&machine, 40), (0, u64::MAX));
    }

    #[test]
    fn memory_of_gpus_is_offered_beside_the_machines_own() {
        let reports = [gpu("CUDA0", 24, 1000), gpu("CUDA1", 8, 250), cpu()];
        let machine = Machine::new(32 * GB, Some(&reports), Limits::default());
        assert_eq!((machine.host, machine.vram), (32 * GB, 32 * GB));
        let memory = machine.memory();
        assert_eq!((memory.total_bytes, memory.offered_bytes), (64 * GB, 64 * GB));
        // 24 ms for the first one's, 32 for the second one's.
        let read = 32 * GB * 1000 / 56;
        assert!(machine.gpus().bandwidth.abs_diff(read) < 10);
        assert_eq!(
            (machine.gpus().offered_bytes, machine.bandwidth),
            (32 * GB, Some(50 * GB))
        );
        let names: Vec<(&str, u64)> = machine
            .devices
            .iter()
            .map(|device| (device.name.as_str(), device.memory_bytes / GB))
            .collect();
        assert_eq!(names, [("CUDA0", 24), ("CUDA1", 8), ("CPU", 32)]);
    }

    #[test]
    fn each_kind_of_memory_has_its_limit() {
        let reports = [gpu("CUDA0", 24, 1000), gpu("CUDA1", 8, 250), cpu()];
        let machine = Machine::new(32 * GB, Some(&reports), limits(Some(5), Some(30)));
        assert_eq!((machine.host, machine.vram), (5 * GB, 30 * GB));
        let memory = machine.memory();
        assert_eq!((memory.total_bytes, memory.offered_bytes), (64 * GB, 35 * GB));
    }

    #[test]
    fn memory_that_a_gpu_shares_is_offered_once() {
        let reports = [device("MTL0", MemoryKind::Shared, 48, 400), cpu()];
        let machine = Machine::new(64 * GB, Some(&reports), limits(Some(40), None));
        assert_eq!(machine.memory().offered_bytes, 40 * GB);
        assert_eq!((machine.vram, machine.gpus().offered_bytes), (0, 40 * GB));
        assert_eq!(beside(&machine, 10), (30 * GB, 30 * GB));
        let machine = Machine::new(64 * GB, Some(&reports), limits(None, Some(20)));
        assert_eq!((machine.host, machine.gpus().offered_bytes), (64 * GB, 20 * GB));
    }

    #[test]
    fn what_others_take_they_take_of_gpus_first() {
        let machine = Machine::new(
            32 * GB,
            Some(&[gpu("CUDA0", 24, 1000), cpu()]),
            limits(Some(8), None),
        );
        assert_eq!(beside(&machine, 10), (8 * GB, 14 * GB));
        assert_eq!(beside(&machine, 26), (6 * GB, 0));
        assert_eq!(beside(&machine, 99), (0, 0));
    }

    #[test]
    fn a_rate_that_was_not_measured_is_not_known() {
        let mut reports = [gpu("CUDA0", 24, 1000), cpu()];
        reports.iter_mut().for_each(|report| report.bandwidth = None);
        let machine = Machine::new(32 * GB, Some(&reports), Limits::default());
        assert_eq!((machine.gpus().bandwidth, machine.bandwidth), (0, None));
        let unknown = Machine::new(32 * GB, None, Limits::default());
        assert_eq!(
            (unknown.gpus(), unknown.devices[0].name.as_str()),
            (Gpus::default(), CPU)
        );
    }
}
