//! Root's powers, which a worker has where it runs as root, in containers above all.

use super::Report;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What is kept: reading models and writing state whosever they are, as before; locking memory, which GPU
/// drivers do; and priorities.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::SYS_NICE);

/// Gives up the others, in this thread and those that it starts.
pub(super) fn enforce(report: &mut Report) {
    let result = capabilities(None).and_then(|had| {
        let left = CapabilitySets {
            effective: had.effective & KEPT,
            permitted: had.permitted & KEPT,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, left)?;
        Ok(!(had.permitted - KEPT).is_empty())
    });
    match result {
        Ok(true) => report.enforced.push("no powers of root but to files".to_owned()),
        Ok(false) => {}
        Err(error) => report.missing.push(format!("giving up root's powers ({error})")),
    }
}
