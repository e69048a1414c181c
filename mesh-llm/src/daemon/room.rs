//! How much memory of this machine a model could have at the moment.

use super::settings::EngineSettings;
use crate::engine::Program;
use crate::engine::devices::{Depth, look};
use llama_engine::host_memory::HostMemory;
use llama_engine::rpc::devices::{DeviceReport, MemoryKind};

/// Bytes of this machine's memory and of its GPUs' that no program uses, within what the settings let models take; where
/// the system does not say, no model is too large. Drivers of GPUs may take seconds to answer.
pub(super) fn free(settings: &EngineSettings, program: Option<&Program>) -> u64 {
    let memory = available_memory().min(settings.max_memory.unwrap_or(u64::MAX));
    let has_gpus = |program: &&Program| program.may_have_gpus() && settings.gpu_layers != Some(0);
    let Some(program) = program.filter(has_gpus) else {
        return memory;
    };
    let (reports, end) = look(program, &settings.devices, Depth::Listed);
    if let Err(error) = end {
        tracing::debug!(%error, "what GPUs have is not known");
    }
    memory.saturating_add(free_on_gpus(&reports).min(settings.max_vram.unwrap_or(u64::MAX)))
}

fn free_on_gpus(reports: &[DeviceReport]) -> u64 {
    let own = reports.iter().filter(|report| report.memory == MemoryKind::Own);
    own.map(|report| report.free).sum()
}

fn available_memory() -> u64 {
    HostMemory::now().map_or(u64::MAX, |memory| memory.available)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_a_gpu_shares_is_no_more() {
        let report = |memory, free| DeviceReport {
            name: String::new(),
            description: String::new(),
            memory,
            total: 100,
            free,
            bandwidth: None,
        };
        let reports = [
            report(MemoryKind::Own, 5),
            report(MemoryKind::Own, 7),
            report(MemoryKind::Shared, 20),
            report(MemoryKind::Host, 30),
        ];
        assert_eq!(free_on_gpus(&reports), 12);
    }
}
