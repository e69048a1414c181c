//! What this machine computes with.

use super::{Error, Out, size};
use crate::engine::Program;
use crate::engine::devices::{Depth, look};
use crate::exit::Exit;
use llama_engine::rpc::devices::{DeviceReport, MemoryKind};

/// Lists the devices that the engine of this machine finds, and what they read a second.
pub(super) fn devices(program: &Program, out: Out) -> Result<Exit, Error> {
    let (reports, end) = look(program, &[], Depth::Measured);
    match end {
        Err(error) if reports.is_empty() => return Err(Error::Devices(error)),
        Err(error) => tracing::warn!(%error, "what they read is not known"),
        Ok(()) => {}
    }
    out.rows(
        &["DEVICE", "WHAT IT IS", "MEMORY", "FREE", "READS"],
        &reports,
        row,
    )?;
    Ok(Exit::DONE)
}

fn row(report: &DeviceReport) -> Vec<String> {
    let memory = match report.memory {
        MemoryKind::Shared => format!("{}, the processor's", size(report.total)),
        MemoryKind::Host | MemoryKind::Own => size(report.total),
    };
    let reads = report.bandwidth.map(|bytes| format!("{}/s", size(bytes)));
    vec![
        report.name.clone(),
        report.description.clone(),
        memory,
        size(report.free),
        reads.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_open() {
        let report = DeviceReport {
            name: "MTL0".into(),
            description: "Apple M4".into(),
            memory: MemoryKind::Shared,
            total: 48_000_000_000,
            free: 40_000_000_000,
            bandwidth: None,
        };
        let cells = row(&report);
        assert_eq!(
            cells,
            ["MTL0", "Apple M4", "48.00 GB, the processor's", "40.00 GB", ""]
        );
        let measured = DeviceReport {
            memory: MemoryKind::Own,
            bandwidth: Some(1_000_000_000_000),
            ..report
        };
        assert_eq!(row(&measured)[2..], ["48.00 GB", "40.00 GB", "1.00 TB/s"]);
    }
}
