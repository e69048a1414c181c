//! How a llama-server is started: shared by the daemon, which writes these as arguments, and the
//! child, which reads them.

use crate::rpc::door::Door;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Declares an option with a fixed set of words: parsed, displayed and deserialised by word.
macro_rules! words {
    (
        $(#[$outer:meta])* $name:ident, $what:literal, default $default:ident,
        $( $(#[$inner:meta])* $variant:ident = $word:literal, )+
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub enum $name { $( $(#[$inner])* $variant, )+ }

        impl $name {
            /// Every value, in the order in which help texts list them.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The word for this value, in arguments, variables and files.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl Default for $name {
            fn default() -> Self { Self::$default }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|value| value.word() == text).ok_or_else(|| UnknownWord {
                    what: $what,
                    word: text.to_owned(),
                    known: Self::ALL.iter().map(|value| value.word()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnknownWord;

            fn try_from(text: String) -> Result<Self, UnknownWord> { text.parse() }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.word()) }
        }
    };
}

mod speculation;

pub use speculation::{
    BadCount, BadProbability, Count, Draft, MOST_WINDOW, Origin, Probability, Speculation, SpeculationMode,
};

/// The environment variable that carries the secret of a TCP listener. Arguments are visible to
/// every user of a machine, a process's environment is not.
pub const SECRET_VARIABLE: &str = "MESH_LLM_ENGINE_SECRET";

/// The environment variable that carries the secret of a split's workers.
pub const RPC_SECRET_VARIABLE: &str = "MESH_LLM_RPC_SECRET";

/// The environment variable with the milliseconds of `step_delay`, for benches: daemons hand it down as it is.
pub const STEP_DELAY_VARIABLE: &str = "MESH_LLM_STEP_DELAY";

/// Everything that a llama-server is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where to answer requests.
    pub listen: Listen,
    /// What each request must carry as `Authorization: Bearer`; none on a Unix socket, which the
    /// file system protects.
    pub secret: Option<String>,
    /// The GGUF file, of a split model its first part.
    pub model: PathBuf,
    /// The model's id at the API.
    pub model_name: String,
    /// Tokens that all slots share; none: as many as fit, up to what the model was trained for.
    pub context: Option<u32>,
    /// Requests served at once; none: as many as fit.
    pub slots: Option<u32>,
    /// Names of the devices to use, in this order; none given: every GPU, else the CPU.
    pub devices: Vec<String>,
    /// Threads that compute; none: one for each physical core.
    pub threads: Option<u32>,
    /// Layers to put on GPUs; none: as many as fit.
    pub gpu_layers: Option<u32>,
    /// Most bytes of this machine's memory, GPUs' own not counted, that the model may take; none: what is
    /// free.
    pub max_memory: Option<u64>,
    /// Most bytes of GPUs' own memory that the model may take, of all of them together; none: what is free.
    pub max_vram: Option<u64>,
    /// How keys are kept in the KV cache.
    pub cache_type_k: CacheType,
    /// How values are kept in the KV cache.
    pub cache_type_v: CacheType,
    /// Whether attention is computed in one fused step.
    pub flash_attention: FlashAttention,
    /// Tokens that one decode step processes at most; none: the engine's choice.
    pub batch_size: Option<u32>,
    /// Requests that may wait for a slot; none: the engine's choice.
    pub queue: Option<u32>,
    /// Where slots' caches are kept from one start to the next.
    pub slot_save: Option<SlotSave>,
    /// Workers to split the model over, as `ADDRESS:PORT` or as nodes behind a door, in the order of the layers;
    /// none: no split.
    pub rpc: Vec<String>,
    /// What the workers' listeners want to be shown.
    pub rpc_secret: Option<String>,
    /// Where workers are reached that are in the daemon's mesh; none: at their addresses.
    pub door: Option<Door>,
    /// Layers, or shares of them, of the host and of each worker's device, in order; none: the engine's
    /// choice.
    pub tensor_split: Vec<u32>,
    /// Whether all devices of a split get as many layers, where nobody says otherwise: also those that a model could do
    /// without.
    pub even_split: bool,
    /// How an answer's next tokens are guessed.
    pub speculation: Speculation,
    /// Where fingerprints of models are remembered, for a split; none: they are not.
    pub fingerprints: Option<PathBuf>,
    /// How the log on standard error looks.
    pub log: LogFormat,
    /// How much is logged: 0 what a user wants to know, 1 also debugging, 2 everything.
    pub verbose: u8,
    /// How much longer this machine's layers take for a step than they would: what a small model needs in
    /// order to stand for a large one in benches.
    pub step_delay: Duration,
}

impl Options {
    /// Options that leave every choice to the engine.
    pub fn new(listen: Listen, model: PathBuf, model_name: String) -> Self {
        Self {
            listen,
            secret: None,
            model,
            model_name,
            context: None,
            slots: None,
            devices: Vec::new(),
            threads: None,
            gpu_layers: None,
            max_memory: None,
            max_vram: None,
            cache_type_k: CacheType::default(),
            cache_type_v: CacheType::default(),
            flash_attention: FlashAttention::default(),
            batch_size: None,
            queue: None,
            slot_save: None,
            rpc: Vec::new(),
            rpc_secret: None,
            door: None,
            tensor_split: Vec::new(),
            even_split: false,
            speculation: Speculation::default(),
            fingerprints: None,
            log: LogFormat::default(),
            verbose: 0,
            step_delay: Duration::ZERO,
        }
    }
}

/// Where slots' caches are kept, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSave {
    /// A folder for them alone.
    pub folder: PathBuf,
    /// The most bytes of all files together.
    pub most_bytes: u64,
}

/// A word that an option does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{word}` is not known; possible: {known}")]
pub struct UnknownWord {
    what: &'static str,
    word: String,
    known: String,
}

/// Where a llama-server listens; written `unix:PATH` or `tcp:ADDRESS:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket, created at this path.
    Unix(PathBuf),
    /// A TCP port; 0 lets the system choose one.
    Tcp(SocketAddr),
}

/// An address that is no [`Listen`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen at; write unix:PATH or tcp:ADDRESS:PORT, such as tcp:127.0.0.1:0")]
pub struct BadListen(String);

impl FromStr for Listen {
    type Err = BadListen;

    fn from_str(text: &str) -> Result<Self, BadListen> {
        let bad = || BadListen(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Listen::Unix(path.into())),
            Some(("tcp", address)) => address.parse().map(Listen::Tcp).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
            Listen::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

words! {
    /// How the KV cache stores numbers: fewer bits take less memory and lose some precision.
    CacheType, "KV cache type", default F16,
    /// 32-bit floats.
    F32 = "f32",
    /// 16-bit floats.
    F16 = "f16",
    /// 16-bit floats with the range of 32-bit ones.
    Bf16 = "bf16",
    /// 8.5 bits a value.
    Q8_0 = "q8_0",
    /// 6 bits a value.
    Q5_1 = "q5_1",
    /// 5.5 bits a value.
    Q5_0 = "q5_0",
    /// 5 bits a value.
    Q4_1 = "q4_1",
    /// 4.5 bits a value.
    Q4_0 = "q4_0",
    /// 4.5 bits a value, on a non-linear scale.
    Iq4Nl = "iq4_nl",
}

words! {
    /// Whether attention is computed in one fused step, which takes less memory.
    FlashAttention, "flash attention", default Auto,
    /// Where the device can.
    Auto = "auto",
    /// Always.
    On = "on",
    /// Never.
    Off = "off",
}

words! {
    /// How a log looks.
    LogFormat, "log format", default Text,
    /// Lines for people.
    Text = "text",
    /// One JSON object a line.
    Json = "json",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["unix:/run/x.sock", "unix:a:b", "tcp:127.0.0.1:0", "tcp:[::1]:80"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "unix:",
            "/run/x.sock",
            "tcp:localhost",
            "tcp:localhost:80",
            "udp:127.0.0.1:1",
        ] {
            assert_eq!(text.parse::<Listen>(), Err(BadListen(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for value in CacheType::ALL {
            assert_eq!(value.word().parse(), Ok(*value));
        }
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("on".parse(), Ok(FlashAttention::On));
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        assert_eq!(
            "maybe".parse::<FlashAttention>().unwrap_err().to_string(),
            "flash attention `maybe` is not known; possible: auto, on, off"
        );
        assert!(
            serde_json::from_str::<CacheType>(r#""q9""#)
                .unwrap_err()
                .to_string()
                .contains("q8_0, q5_1")
        );
    }
}
