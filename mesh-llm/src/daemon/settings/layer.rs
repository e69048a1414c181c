//! What one source says, and which of two counts.

use super::{
    ApiKey, Devices, Gigabytes, Milliseconds, ModelNames, RelayUrls, SecretSource, Switch, TensorSplit,
    TokenSource, Workers, mesh, speculation,
};
use llama_engine::server::options::{
    CacheType, Count, FlashAttention, LogFormat, Probability, SpeculationMode,
};
use serde::Deserialize;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// What one source says; the rest is left to the sources below it.
///
/// The names of the fields are the keys of the file and, with dashes, the daemon's flags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Layer {
    /// The models to serve: paths or other words for them.
    pub model: Option<ModelNames>,
    /// The address of the API.
    pub host: Option<String>,
    /// The port of the API.
    pub port: Option<u16>,
    /// The key that clients of the API show.
    pub api_key: Option<ApiKey>,
    /// A file with such keys, one a line.
    pub api_key_file: Option<PathBuf>,
    /// Tokens that all slots share.
    pub ctx_size: Option<NonZeroU32>,
    /// Requests served at once.
    pub parallel: Option<NonZeroU32>,
    /// Requests that may wait for a slot.
    pub queue: Option<u32>,
    /// Devices that compute.
    pub device: Option<Devices>,
    /// Threads that compute.
    pub threads: Option<NonZeroU32>,
    /// Layers on GPUs.
    pub gpu_layers: Option<u32>,
    /// Memory of this machine that the model takes at most.
    pub max_memory: Option<Gigabytes>,
    /// GPUs' own memory that the model takes at most.
    pub max_vram: Option<Gigabytes>,
    /// How keys are kept in the KV cache.
    pub cache_type_k: Option<CacheType>,
    /// How values are kept in the KV cache.
    pub cache_type_v: Option<CacheType>,
    /// Whether attention is computed in one fused step.
    pub flash_attn: Option<FlashAttention>,
    /// Gigabytes of slots' caches that are kept on disk.
    pub slot_save: Option<NonZeroU32>,
    /// Workers to split the model over.
    pub rpc: Option<Workers>,
    /// The secret that the machines of a split share.
    #[serde(rename = "rpc-secret-file")]
    pub rpc_secret: Option<SecretSource>,
    /// Layers of this machine and of each worker.
    pub tensor_split: Option<TensorSplit>,
    /// The draft model: a path or other words for one.
    pub draft: Option<String>,
    /// Whether there is to be none.
    pub no_draft: Option<Switch>,
    /// Tokens of a window of guesses at most.
    pub draft_max: Option<Count>,
    /// What the draft model must think of a guess at least.
    pub draft_min_p: Option<Probability>,
    /// What guesses ahead.
    pub speculate: Option<SpeculationMode>,
    /// Windows of guesses in flight.
    pub draft_windows: Option<Count>,
    /// The token to join a mesh by.
    pub join: Option<TokenSource>,
    /// Whether to use models of others only.
    pub client: Option<Switch>,
    /// Whether to be alone.
    pub no_mesh: Option<Switch>,
    /// Relays of one's own.
    pub relay: Option<RelayUrls>,
    /// Whether there are to be none.
    pub no_relay: Option<Switch>,
    /// The UDP port of the mesh.
    pub bind_port: Option<u16>,
    /// Whether the model is to be split over the mesh also where it fits here.
    pub split: Option<Switch>,
    /// Milliseconds that other machines of a split may be away.
    pub max_rtt: Option<Milliseconds>,
    /// The port of the console.
    pub console: Option<u16>,
    /// Whether there is to be none.
    pub no_console: Option<Switch>,
    /// Where to find `llama-server`.
    pub bin_dir: Option<PathBuf>,
    /// How the log looks.
    pub log_format: Option<LogFormat>,
    /// How much is logged.
    pub verbose: Option<u8>,
}

impl Layer {
    /// This layer, and what it leaves open from the one `below`.
    pub fn over(self, below: Layer) -> Layer {
        // Asked before anything is moved: what a layer wants, it wants whatever is said against it below.
        let wish = |of: fn(&Layer) -> Option<Switch>| of(&self).or(of(&below));
        let (no_draft, no_mesh, client) = (
            wish(speculation::no_draft),
            wish(mesh::no_mesh),
            wish(mesh::client),
        );
        let (no_relay, no_console) = (wish(mesh::no_relay), wish(mesh::no_console));
        Layer {
            model: self.model.or(below.model),
            host: self.host.or(below.host),
            port: self.port.or(below.port),
            api_key: self.api_key.or(below.api_key),
            api_key_file: self.api_key_file.or(below.api_key_file),
            ctx_size: self.ctx_size.or(below.ctx_size),
            parallel: self.parallel.or(below.parallel),
            queue: self.queue.or(below.queue),
            device: self.device.or(below.device),
            threads: self.threads.or(below.threads),
            gpu_layers: self.gpu_layers.or(below.gpu_layers),
            max_memory: self.max_memory.or(below.max_memory),
            max_vram: self.max_vram.or(below.max_vram),
            cache_type_k: self.cache_type_k.or(below.cache_type_k),
            cache_type_v: self.cache_type_v.or(below.cache_type_v),
            flash_attn: self.flash_attn.or(below.flash_attn),
            slot_save: self.slot_save.or(below.slot_save),
            rpc: self.rpc.or(below.rpc),
            rpc_secret: self.rpc_secret.or(below.rpc_secret),
            tensor_split: self.tensor_split.or(below.tensor_split),
            draft: self.draft.or(below.draft),
            no_draft,
            draft_max: self.draft_max.or(below.draft_max),
            draft_min_p: self.draft_min_p.or(below.draft_min_p),
            speculate: self.speculate.or(below.speculate),
            draft_windows: self.draft_windows.or(below.draft_windows),
            join: self.join.or(below.join),
            client,
            no_mesh,
            relay: self.relay.or(below.relay),
            no_relay,
            bind_port: self.bind_port.or(below.bind_port),
            split: self.split.or(below.split),
            max_rtt: self.max_rtt.or(below.max_rtt),
            console: self.console.or(below.console),
            no_console,
            bin_dir: self.bin_dir.or(below.bin_dir),
            log_format: self.log_format.or(below.log_format),
            verbose: self.verbose.or(below.verbose),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layers() -> impl Strategy<Value = Layer> {
        let number = || proptest::option::of(1..9u32);
        (number(), number(), number(), number()).prop_map(|(port, queue, layers, verbose)| Layer {
            port: port.map(|n| n as u16),
            queue,
            gpu_layers: layers,
            verbose: verbose.map(|n| n as u8),
            ..Layer::default()
        })
    }

    proptest! {
        #[test]
        fn precedence_does_not_depend_on_the_order_of_merging(a in layers(), b in layers(), c in layers()) {
            let left = a.clone().over(b.clone()).over(c.clone());
            prop_assert_eq!(left, a.over(b.over(c)));
        }

        #[test]
        fn the_upper_layer_wins(a in layers(), b in layers()) {
            let merged = a.clone().over(b.clone());
            prop_assert_eq!(merged.port, a.port.or(b.port));
            prop_assert_eq!(a.clone().over(Layer::default()), a.clone());
            prop_assert_eq!(Layer::default().over(a.clone()), a);
        }
    }
}
