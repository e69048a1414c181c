//! The flags of the daemon.

mod mesh;

use crate::daemon::settings::{
    ApiKey, DEFAULT_HOST, DEFAULT_PORT, Devices, Gigabytes, Layer, ModelNames, SecretSource, Switch,
    TensorSplit, Worker, Workers,
};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args};
use llama_engine::server::options::{
    CacheType, Count, FlashAttention, LogFormat, MOST_WINDOW, Probability, SpeculationMode,
};
use mesh::MeshFlags;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// What can be said when the daemon is started. Nothing here has a default: what a flag leaves
/// open, a variable or a file may say.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Model to serve: a name such as Qwen3-8B (`mesh-llm download` lists them), org/repo or
    /// org/repo:Q4_K_M of Hugging Face, a URL, the path of a GGUF file (of a split model its first
    /// part), or `tiny` for the embedded one; what is not on disk is downloaded; repeat it for several
    /// [default: the last one served, else the largest on disk that fits, else tiny]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,

    /// Port of the API; 0 takes any free one
    #[arg(long, help = format!("Port of the API; 0 takes any free one [default: {DEFAULT_PORT}]"))]
    port: Option<u16>,

    /// Address of the API
    #[arg(long, value_name = "ADDRESS", help = format!("Address of the API; 0.0.0.0 lets every machine in that reaches this one [default: {DEFAULT_HOST}]"))]
    host: Option<String>,

    /// Key that every request must show, as `Authorization: Bearer KEY`; other users of this machine
    /// see flags, so MESH_LLM_API_KEY or --api-key-file keeps it better [default: none]
    #[arg(long, value_name = "KEY")]
    api_key: Option<ApiKey>,

    /// File with such keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Tokens of context that all requests share [default: as many as the model knows and memory
    /// holds]; less saves memory
    #[arg(long, value_name = "TOKENS")]
    ctx_size: Option<NonZeroU32>,

    /// Requests served at once; others wait [default: as fits the memory]
    #[arg(long, value_name = "N")]
    parallel: Option<NonZeroU32>,

    /// Requests that may wait; more are answered 429 [default: the engine's]
    #[arg(long, value_name = "N")]
    queue: Option<u32>,

    /// Device to compute on, such as CUDA0; repeat it, or put commas between several [default:
    /// every GPU, else the CPU]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    device: Vec<String>,

    /// Threads that compute on the CPU [default: one for each core]; fewer leave the machine usable
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroU32>,

    /// Layers of the model to put on GPUs [default: as many as fit]; 0 uses the CPU alone
    #[arg(long, value_name = "N")]
    gpu_layers: Option<u32>,

    /// Gigabytes of this machine's memory that the model takes at most, such as 7.5; a GPU's own are not
    /// counted [default: what is free]
    #[arg(long, value_name = "GB")]
    max_memory: Option<Gigabytes>,

    /// Gigabytes of this machine's GPUs, of all together, that models take at most, such as 20; what others are
    /// lent counts, too; --gpu-layers 0 takes none [default: what is free]
    #[arg(long, value_name = "GB")]
    max_vram: Option<Gigabytes>,

    /// Numbers in which the context's keys are kept [default: f16]; q8_0 takes half the memory
    #[arg(long, value_name = "TYPE", value_parser = cache_type())]
    cache_type_k: Option<CacheType>,

    /// Numbers in which the context's values are kept [default: f16]; fewer bits than 16 need
    /// flash attention
    #[arg(long, value_name = "TYPE", value_parser = cache_type())]
    cache_type_v: Option<CacheType>,

    /// Whether attention is computed in one step, which saves memory [default: auto]
    #[arg(long, value_name = "WHEN", value_parser = flash_attention())]
    flash_attn: Option<FlashAttention>,

    /// Keep the slots' caches on disk when the program ends, at most so many gigabytes, so that chats
    /// go on without computing their prompts again [default: not kept]
    #[arg(long, value_name = "GB")]
    slot_save: Option<NonZeroU32>,

    /// Worker to split the model with, a machine where `mesh-llm rpc-server` runs, as NAME:PORT; repeat
    /// it, or put commas between several, in the order in which they take the layers [default: none]
    #[arg(long, value_name = "NAME:PORT", value_delimiter = ',')]
    rpc: Vec<Worker>,

    /// File with the secret that this machine and the workers share, a copy of the one that the first
    /// rpc-server made; MESH_LLM_RPC_SECRET may hold the secret itself [default: rpc-secret in
    /// MESH_LLM_HOME]
    #[arg(long, value_name = "FILE")]
    rpc_secret_file: Option<PathBuf>,

    /// Layers of the model, or shares of them, for this machine and then for each worker, such as 20,4; a machine
    /// with GPUs takes a number for each, and this one another for its processor [default: the fastest way that fits]
    #[arg(long, value_name = "N,N,…")]
    tensor_split: Option<TensorSplit>,

    /// Small model that guesses the answer's next words for the large one to verify several at once: a
    /// name, org/repo, a URL or a path, as for --model, of a model with the same vocabulary, or of an EAGLE-3 file
    /// that was made for the large one [default: the one that `mesh-llm download --draft` fetches with the model, if
    /// it is there]
    #[arg(long, value_name = "MODEL", conflicts_with = "no_draft")]
    draft: Option<String>,

    /// Use no draft model, even if there is one
    #[arg(long)]
    no_draft: bool,

    /// Tokens that are guessed in one piece at most
    #[arg(long, value_name = "N", help = format!("Tokens that are guessed in one piece at most [default: {MOST_WINDOW}]"))]
    draft_max: Option<Count>,

    /// How sure the draft model must be of a guess, from 0 to 1; less is not guessed [default: 0]
    #[arg(long, value_name = "P")]
    draft_min_p: Option<Probability>,

    /// What guesses ahead [default: auto]; draft: the draft model, or layers made for it, alone,
    /// ngram: text that was there before alone, off: nothing
    #[arg(long, value_name = "WHAT", value_parser = speculation())]
    speculate: Option<SpeculationMode>,

    /// Pieces of guesses that are on their way through a split at once [default: as many as pay]
    #[arg(long, value_name = "N")]
    draft_windows: Option<Count>,

    /// Folder to run `llama-server` from [default: the one inside this program]; for engines that
    /// were built for other devices
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Form of everything on standard error [default: text]; json is one object a line, for
    /// programs
    #[arg(long, value_name = "FORMAT", value_parser = log_format())]
    log_format: Option<LogFormat>,

    /// Says more: -v for what happens, -vv for everything
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Configuration file [default: config.toml in MESH_LLM_HOME, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    // At the end, as its heading goes for all that follows.
    #[command(flatten)]
    mesh: MeshFlags,
}

/// Reads a type of the KV cache.
pub(super) fn cache_type() -> impl TypedValueParser<Value = CacheType> {
    PossibleValuesParser::new(CacheType::ALL.iter().map(|value| value.word()))
        .try_map(|word| word.parse::<CacheType>())
}

/// Reads the form of the log.
pub(super) fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(LogFormat::ALL.iter().map(|value| value.word()))
        .try_map(|word| word.parse::<LogFormat>())
}

/// Reads what guesses ahead.
pub(super) fn speculation() -> impl TypedValueParser<Value = SpeculationMode> {
    PossibleValuesParser::new(SpeculationMode::ALL.iter().map(|value| value.word()))
        .try_map(|word| word.parse::<SpeculationMode>())
}

/// Reads when flash attention is used.
pub(super) fn flash_attention() -> impl TypedValueParser<Value = FlashAttention> {
    PossibleValuesParser::new(FlashAttention::ALL.iter().map(|value| value.word()))
        .try_map(|word| word.parse::<FlashAttention>())
}

impl Flags {
    /// The configuration file that was named, and what else was said.
    pub(super) fn into_layer(self) -> (Option<PathBuf>, Layer) {
        let layer = Layer {
            model: (!self.model.is_empty()).then_some(ModelNames(self.model)),
            host: self.host,
            port: self.port,
            api_key: self.api_key,
            api_key_file: self.api_key_file,
            ctx_size: self.ctx_size,
            parallel: self.parallel,
            queue: self.queue,
            device: (!self.device.is_empty()).then_some(Devices(self.device)),
            threads: self.threads,
            gpu_layers: self.gpu_layers,
            max_memory: self.max_memory,
            max_vram: self.max_vram,
            cache_type_k: self.cache_type_k,
            cache_type_v: self.cache_type_v,
            flash_attn: self.flash_attn,
            slot_save: self.slot_save,
            rpc: (!self.rpc.is_empty()).then_some(Workers(self.rpc)),
            rpc_secret: self.rpc_secret_file.map(SecretSource::File),
            tensor_split: self.tensor_split,
            draft: self.draft,
            no_draft: self.no_draft.then_some(Switch(true)),
            draft_max: self.draft_max,
            draft_min_p: self.draft_min_p,
            speculate: self.speculate,
            draft_windows: self.draft_windows,
            bin_dir: self.bin_dir,
            log_format: self.log_format,
            verbose: (self.verbose > 0).then_some(self.verbose),
            ..self.mesh.into_layer()
        };
        (self.config, layer)
    }
}
