//! Where a model's layers go.

use super::load::{Refused, refused};
use super::options::Options;
use super::split::Arrangement;
use crate::llama::{self, Device, DeviceKind, ModelParams};
use crate::status::Refusal;

/// Where the model's layers go.
#[derive(Debug)]
pub(super) enum Placed {
    /// On these devices of this machine, and its CPU.
    Here(Vec<Device>),
    /// On several nodes.
    Split(Box<Arrangement>),
}

impl Placed {
    /// Where the nodes are, if there are several.
    pub(super) fn arrangement(&self) -> Option<&Arrangement> {
        match self {
            Self::Here(_) => None,
            Self::Split(arrangement) => Some(arrangement),
        }
    }

    /// What failed because a node was lost meanwhile, or has no room just now, may succeed later.
    pub(super) fn blame(&self, refused: Refused) -> Refused {
        let later = self
            .arrangement()
            .and_then(|arrangement| arrangement.passing(&refused));
        later.unwrap_or(refused)
    }

    /// The devices, with so many layers on those that are no CPU.
    pub(super) fn model_params(&self, gpu_layers: u32) -> ModelParams {
        match self {
            Self::Here(devices) => on(devices, gpu_layers),
            Self::Split(arrangement) => arrangement.model_params(),
        }
    }

    /// This machine's devices beside its CPU that a small model may use as a whole, the best first; none is
    /// the CPU. Workers are too far away for it.
    pub(super) fn for_draft(&self) -> Vec<ModelParams> {
        let all = llama::devices();
        let gpus = match self {
            Self::Here(devices) => devices.iter(),
            Self::Split(_) => all.iter(),
        };
        let own = gpus.filter(|device| device.kind == DeviceKind::Gpu && !device.is_of_split());
        let mut places: Vec<_> = own
            .map(|gpu| ModelParams {
                // All of them.
                gpu_layers: None,
                ..on(std::slice::from_ref(gpu), 0)
            })
            .collect();
        places.push(on(&[], 0));
        places
    }
}

fn on(devices: &[Device], gpu_layers: u32) -> ModelParams {
    ModelParams {
        devices: Some(devices.to_vec()),
        gpu_layers: Some(gpu_layers),
        ..ModelParams::default()
    }
}

/// The GPUs to use: those named, or all that are of use; none where none are to be used.
///
/// # Errors
/// Where one is named that this machine does not have.
pub(super) fn choose_devices(options: &Options) -> Result<Vec<Device>, Refused> {
    let gpus = llama::gpus(&options.devices);
    let mut gpus = gpus.map_err(|error| refused(Refusal::Arguments, error.to_string()))?;
    if options.gpu_layers == Some(0) {
        gpus.clear();
    }
    Ok(gpus)
}
