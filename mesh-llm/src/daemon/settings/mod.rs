//! What the daemon was told: flags over variables over a file over defaults.
//!
//! Each source is read into a [`Layer`]; [`Layer::over`] is the whole of the precedence.

mod file;
mod layer;
mod mesh;
mod speculation;
mod split;
mod token;
mod user;
mod values;
mod variables;

pub use layer::Layer;
pub use mesh::{DEFAULT_MAX_RTT, MeshSettings, Part, Presence, RelayUrl, RelayUrls, Relays, Spread};
pub use speculation::{DraftWish, SpeculationSettings, Switch};
pub use split::{SecretSource, SplitSettings, TensorSplit, Worker, Workers};
pub use token::{TokenError, TokenSource};
pub use user::UserFolders;
pub use values::{ApiKey, Devices, Gigabytes, Hidden, Milliseconds, ModelNames};

use crate::exit::Exit;
use crate::models::places::Places;
use llama_engine::server::options::{CacheType, FlashAttention, LogFormat};
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port where clients expect the API.
pub const DEFAULT_PORT: u16 = 9337;

/// The address that only this machine reaches.
pub const DEFAULT_HOST: &str = "127.0.0.1";

/// What the daemon does, every question answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The state directory.
    pub home: PathBuf,
    /// Where models are.
    pub places: Places,
    /// The models to serve: paths or other words for them; none: one found on disk, else the embedded one.
    pub models: Vec<String>,
    /// The address of the API.
    pub host: String,
    /// The port of the API; 0 lets the system choose one.
    pub port: u16,
    /// The key that clients of the API show.
    pub api_key: Option<ApiKey>,
    /// A file with such keys.
    pub api_key_file: Option<PathBuf>,
    /// Where `llama-server` is; none: it is part of this binary.
    pub bin_dir: Option<PathBuf>,
    /// What is passed on to the engine.
    pub engine: EngineSettings,
    /// How the model is split over machines.
    pub split: SplitSettings,
    /// How answers are guessed ahead.
    pub speculation: SpeculationSettings,
    /// Whether this machine takes part in a mesh, and how.
    pub mesh: MeshSettings,
    /// How the log looks.
    pub log: LogFormat,
    /// How much is logged.
    pub verbose: u8,
}

/// What is passed on to the engine; none: it chooses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineSettings {
    /// Tokens that all slots share.
    pub context: Option<NonZeroU32>,
    /// Requests served at once.
    pub slots: Option<NonZeroU32>,
    /// Requests that may wait for a slot.
    pub queue: Option<u32>,
    /// Devices that compute.
    pub devices: Vec<String>,
    /// Threads that compute.
    pub threads: Option<NonZeroU32>,
    /// Gigabytes of slots' caches that are kept on disk.
    pub slot_save: Option<NonZeroU32>,
    /// Layers on GPUs.
    pub gpu_layers: Option<u32>,
    /// Bytes of this machine's memory that the model takes at most, GPUs' own not counted.
    pub max_memory: Option<u64>,
    /// Bytes of GPUs' own memory that the model takes at most, of all of them together.
    pub max_vram: Option<u64>,
    /// How keys are kept in the KV cache.
    pub cache_type_k: CacheType,
    /// How values are kept in the KV cache.
    pub cache_type_v: CacheType,
    /// Whether attention is computed in one fused step.
    pub flash_attention: FlashAttention,
}

impl Settings {
    /// Reads variables and the configuration file and puts `flags` on top.
    ///
    /// `config` is the file that a flag names; `variable` looks a variable of the environment up.
    pub fn load(
        flags: Layer,
        config: Option<PathBuf>,
        variable: &dyn Fn(&str) -> Option<OsString>,
        user: &UserFolders,
    ) -> Result<Settings, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = match variable("MESH_LLM_HOME") {
            Some(home) => absolute(Path::new(&home)),
            None => user.state.clone().ok_or(Error::NoHome)?,
        };
        let store = match variable("MESH_LLM_MODELS") {
            Some(models) => Some(absolute(Path::new(&models))),
            None => user.home.as_ref().map(|home| home.join(".models")),
        };
        let places = Places::of_user(store, user.home.as_deref(), &variable);
        let environment = variables::layer(&variable)?;
        let file = match config.or_else(|| variable("MESH_LLM_CONFIG").map(PathBuf::from)) {
            Some(path) => file::layer(&path, user.home.as_deref())?,
            None => file::layer_if_there(&home.join("config.toml"), user.home.as_deref())?,
        };
        Ok(Self::from_layer(flags.over(environment).over(file), home, places))
    }

    fn from_layer(layer: Layer, home: PathBuf, places: Places) -> Settings {
        Settings {
            home,
            places,
            speculation: SpeculationSettings::from_layer(&layer),
            mesh: MeshSettings::from_layer(&layer),
            models: layer.model.unwrap_or_default().0,
            host: layer.host.unwrap_or_else(|| DEFAULT_HOST.to_owned()),
            port: layer.port.unwrap_or(DEFAULT_PORT),
            api_key: layer.api_key,
            api_key_file: layer.api_key_file,
            bin_dir: layer.bin_dir,
            engine: EngineSettings {
                context: layer.ctx_size,
                slots: layer.parallel,
                queue: layer.queue,
                devices: layer.device.unwrap_or_default().0,
                threads: layer.threads,
                slot_save: layer.slot_save,
                gpu_layers: layer.gpu_layers,
                max_memory: layer.max_memory.map(|most| most.0),
                max_vram: layer.max_vram.map(|most| most.0),
                cache_type_k: layer.cache_type_k.unwrap_or_default(),
                cache_type_v: layer.cache_type_v.unwrap_or_default(),
                flash_attention: layer.flash_attn.unwrap_or_default(),
            },
            split: SplitSettings {
                workers: layer.rpc.unwrap_or_default().0,
                secret: layer.rpc_secret,
                shares: layer.tensor_split.unwrap_or_default().0,
            },
            log: layer.log_format.unwrap_or_default(),
            verbose: layer.verbose.unwrap_or(0),
        }
    }
}

/// The path from the root, where the current directory is known.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Reads `text` as a `T`, its error in words.
fn read<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: T::Err| error.to_string())
}

/// What cannot be understood or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable of the environment has no meaning.
    #[error("the variable {name} is `{value}`: {cause}; correct it or unset it")]
    Variable {
        /// Its name.
        name: String,
        /// What it holds.
        value: String,
        /// What is wrong with that.
        cause: String,
    },
    /// The configuration file cannot be read.
    #[error("the configuration file {} cannot be read: {cause}; correct its path (--config) or its permissions", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The configuration file says something without a meaning.
    #[error("{}:{line}: {cause}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        cause: String,
    },
    /// There is no place for the state directory.
    #[error("no home directory is known for this user; set MESH_LLM_HOME to a folder for mesh-llm's files")]
    NoHome,
}

impl Error {
    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Variable { .. } | Error::File { .. } => Exit::CONFIGURATION,
            Error::Unreadable { .. } => Exit::FILE,
            Error::NoHome => Exit::STATE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: Layer, config: Option<PathBuf>, variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let user = UserFolders {
            home: Some("/home/u".into()),
            state: Some("/no/such/state".into()),
        };
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        };
        Settings::load(flags, config, &variable, &user)
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let settings = load(Layer::default(), None, &[]).unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("127.0.0.1", 9337));
        assert_eq!(settings.home, Path::new("/no/such/state"));
        assert_eq!(
            settings.places.store.as_deref(),
            Some(Path::new("/home/u/.models"))
        );
        assert_eq!(
            (settings.models, settings.engine),
            (Vec::new(), EngineSettings::default())
        );
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(
            home.path().join("config.toml"),
            "port = 1\nparallel = 1\nthreads = 1",
        )
        .unwrap();
        let variables = [
            ("MESH_LLM_HOME", home.path().to_str().unwrap()),
            ("MESH_LLM_PORT", "2"),
            ("MESH_LLM_PARALLEL", "2"),
        ];
        let flags = Layer {
            port: Some(3),
            ..Layer::default()
        };
        let settings = load(flags, None, &variables).unwrap();
        assert_eq!(settings.port, 3);
        assert_eq!(settings.engine.slots, NonZeroU32::new(2));
        assert_eq!(settings.engine.threads, NonZeroU32::new(1));
        assert_eq!(settings.engine.context, None);
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        let settings = load(
            Layer::default(),
            None,
            &[("MESH_LLM_PORT", ""), ("MESH_LLM_HOME", "")],
        );
        assert_eq!(settings.unwrap().port, DEFAULT_PORT);
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = load(Layer::default(), Some("/no/such/file.toml".into()), &[]).unwrap_err();
        assert_eq!(error.exit(), Exit::FILE);
        assert!(error.to_string().contains("/no/such/file.toml"), "{error}");
    }
}
