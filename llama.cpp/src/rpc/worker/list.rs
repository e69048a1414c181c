//! What this machine computes with, for whoever plans with it.

use std::io::{self, Write};

use super::device::{bandwidth_of, of_machine};
use crate::llama::{self, DeviceKind};
use crate::rpc::devices::{DeviceReport, MemoryKind};
use crate::server::default_threads;

/// Writes what the GPUs with these names are, or all of them where none are named, and the processor: first as they are,
/// then with what they were measured to read. Each time a JSON array on one line.
///
/// # Errors
/// A name that is not there.
pub fn list(names: &[String], threads: Option<u32>) -> Result<(), llama::Error> {
    llama::initialize();
    let devices = of_machine(names)?;
    let mut reports: Vec<DeviceReport> = devices.iter().map(report).collect();
    say(&reports);
    let threads = threads.unwrap_or_else(default_threads);
    for (report, device) in reports.iter_mut().zip(&devices) {
        report.bandwidth = bandwidth_of(device, threads);
    }
    say(&reports);
    Ok(())
}

fn say(reports: &[DeviceReport]) {
    let line = serde_json::to_string(reports).unwrap_or_default();
    // Whoever asked may be gone.
    let _ = writeln!(io::stdout(), "{line}");
}

fn report(device: &llama::Device) -> DeviceReport {
    DeviceReport {
        name: device.name.clone(),
        description: device.description.clone(),
        memory: match device.kind {
            DeviceKind::Gpu if device.shares_memory => MemoryKind::Shared,
            DeviceKind::Gpu => MemoryKind::Own,
            DeviceKind::Cpu | DeviceKind::Accelerator => MemoryKind::Host,
        },
        total: device.total,
        free: device.free,
        bandwidth: None,
    }
}
