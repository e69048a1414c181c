//! What the engine is told.

use super::secret;
use super::settings::{EngineSettings, Settings, SpeculationSettings};
use super::split::Split;
use crate::models::Model;
use llama_engine::server::options::{Count, Draft, Listen, MOST_WINDOW, Options, SlotSave, Speculation};
use std::io;
use std::path::{Path, PathBuf};

/// The folder in the state directory for slots' caches.
const SLOTS: &str = "slots";

/// The socket of an engine.
pub(super) struct Socket<'a> {
    /// The daemon's folder.
    pub(super) folder: &'a Path,
    /// Which of its engines it is; 0 is the first.
    pub(super) number: u32,
}

impl Socket<'_> {
    fn path(&self) -> PathBuf {
        match self.number {
            0 => self.folder.join("llama-server.sock"),
            number => self.folder.join(format!("llama-server-{number}.sock")),
        }
    }
}

/// Everything that the engine is told, so that it serves `model`.
pub(super) fn options(
    settings: &Settings,
    model: Model,
    draft: Option<Draft>,
    split: Split,
    socket: Socket<'_>,
) -> io::Result<Options> {
    let (listen, secret) = if cfg!(unix) {
        (Listen::Unix(socket.path()), None)
    } else {
        // A port is open to every user of the machine, so the daemon must show who it is.
        (Listen::Tcp(([127, 0, 0, 1], 0).into()), Some(secret::random()?))
    };
    let EngineSettings {
        context,
        slots,
        queue,
        devices,
        threads,
        slot_save,
        gpu_layers,
        max_memory,
        max_vram,
        cache_type_k,
        cache_type_v,
        flash_attention,
    } = settings.engine.clone();
    let SpeculationSettings {
        draft: _,
        most_window,
        min_p,
        mode,
        windows,
    } = settings.speculation;
    Ok(Options {
        secret,
        context: context.map(Into::into),
        slots: slots.map(Into::into),
        devices,
        threads: threads.map(Into::into),
        gpu_layers,
        max_memory,
        max_vram,
        cache_type_k,
        cache_type_v,
        flash_attention,
        queue,
        slot_save: slot_save.map(|gigabytes| SlotSave {
            folder: settings.home.join(SLOTS),
            most_bytes: u64::from(gigabytes.get()) * 1_000_000_000,
        }),
        rpc: split.workers,
        rpc_secret: split.secret,
        tensor_split: split.shares,
        speculation: Speculation {
            draft,
            most_window: most_window.map_or(MOST_WINDOW, Count::get),
            min_p: min_p.unwrap_or_default(),
            mode,
            windows: windows.map(Count::get),
        },
        fingerprints: split.fingerprints,
        log: settings.log,
        verbose: settings.verbose,
        ..Options::new(listen, model.path, model.id)
    })
}
