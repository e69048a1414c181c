//! llama.cpp behind safe types.
//!
//! Nothing above this module calls into llama.cpp. It knows nothing of slots, requests or HTTP.
//! The border's two rules are in `shim/shim.h`: no C++ exception and no Rust panic crosses it.

mod chat;
mod context;
mod devices;
mod error;
pub(crate) mod ffi;
mod grammar;
mod log;
mod memory;
mod model;
mod pooling;
mod rows;
mod sampler;
mod threads;
mod unread;
mod vocabulary;

pub use chat::{
    ChatDelta, ChatFormat, ChatParser, ChatPrompt, ChatRequest, ChatTemplates, GrammarTrigger, ToolChoice,
};
pub use context::{Batch, Context, ContextParams, Decoded, Graph, Pooling, SequenceId};
pub use devices::{Device, DeviceKind, devices, gpus, named_devices};
pub use error::Error;
pub use grammar::{check_nesting, json_schema_to_grammar};
pub use log::initialize;
pub use memory::{DeviceNeed, HOST, MemoryNeed, Outline};
pub use model::{HeadLayers, Infill, Model, ModelParams, Token};
pub use rows::{Rows, Target};
pub use sampler::Sampler;
pub(crate) use threads::Threads;
pub use vocabulary::{Mismatch, Vocabulary};

/// The version of the crate that carries llama.cpp.
pub const VERSION: &str = env!("LLAMA_CPP_VERSION");
