//! What is served: `/api/tags`, `/api/show`, `/api/ps`, and requests that only load a model
//! (<https://github.com/ollama/ollama/blob/main/docs/api.md#list-local-models>).
//!
//! All of it is made of the list of models, in the engine's form, and of the own engine's `/props`: of what
//! other nodes serve, less is known.

use super::super::Problem;
use super::answer::{Reply, Shape};
use super::details::Details;
use super::request::{model, read};
use super::time::rfc3339;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Where the engine lists its models.
pub const MODELS_PATH: &str = "/v1/models";
/// Where the engine says what its model is.
pub const PROPS_PATH: &str = "/props";

/// When a model leaves memory that never does: the last time that nanoseconds in 64 bits can tell, as far
/// off as Ollama's own "forever".
const FOREVER: u64 = i64::MAX as u64 / 1_000_000_000;

/// llama.cpp's number of the pooling of models that rank documents, which make no embeddings.
const POOLING_RANK: u32 = 4;

/// The engine's list of models.
#[derive(Debug, Deserialize)]
struct Models {
    data: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    created: u64,
    meta: Meta,
}

/// What a model is, by the engine's names. Of another node's model only the context is known.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    architecture: String,
    n_ctx: u32,
    n_params: u64,
    size: u64,
    /// When the file was last changed, in Unix seconds.
    modified: Option<u64>,
    /// llama.cpp's number of the most common quantization.
    file_type: Option<u32>,
}

/// What else the engine says of its model.
#[derive(Debug, Default, Deserialize)]
struct Props {
    chat_template: String,
    chat_template_caps: Capabilities,
    default_generation_settings: Settings,
    infill: bool,
    model_metadata: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    supports_tools: bool,
    supports_reasoning_effort: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Settings {
    params: Map<String, Value>,
}

/// A model in Ollama's lists.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: String,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_at: Option<String>,
    size: u64,
    digest: String,
    details: Details<'a>,
    #[serde(flatten)]
    running: Option<Running>,
}

/// What `/api/ps` says besides.
#[derive(Debug, Serialize)]
struct Running {
    expires_at: String,
    size_vram: u64,
    context_length: u32,
}

/// What the engine takes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes of weights, caches and buffers.
    pub bytes: u64,
    /// Layers on GPUs.
    pub gpu_layers: u32,
}

/// What is known of the model that this machine itself serves.
#[derive(Debug)]
pub struct Here {
    /// Its name.
    pub model: String,
    /// What the engine says at [`PROPS_PATH`].
    pub props: Bytes,
    /// What it takes.
    pub memory: Memory,
}

/// The answer of `/api/show`.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_at: Option<String>,
    modelfile: String,
    parameters: String,
    template: &'a str,
    details: Details<'a>,
    model_info: Map<String, Value>,
    capabilities: Vec<&'static str>,
}

/// `GET /api/tags`, from what the engine says at [`MODELS_PATH`].
///
/// # Errors
/// Where the engine's list cannot be read.
pub fn tags(models: &[u8]) -> Result<Vec<u8>, Problem> {
    let models: Models = from_engine(models)?;
    let models: Vec<Listed<'_>> = models.data.iter().map(|entry| entry.listed(None)).collect();
    Ok(json!({"models": models}).to_string().into_bytes())
}

/// `GET /api/ps`, from a list as the engine has it at [`MODELS_PATH`]: what is served is in memory, for
/// ever. What it takes on other nodes is not known.
///
/// # Errors
/// Where the list, or the engine's answer, cannot be read.
pub fn running(models: &[u8], here: Option<&Here>) -> Result<Vec<u8>, Problem> {
    let models: Models = from_engine(models)?;
    let own = here
        .map(|here| Ok::<_, Problem>((here, here.props()?)))
        .transpose()?;
    let listed = models.data.iter().map(|entry| {
        let own = own.as_ref().filter(|(here, _)| here.model == entry.id);
        let (size, size_vram) = own.map_or((entry.meta.size, 0), |(here, props)| {
            let layers = props.layers(&entry.meta.architecture);
            (here.memory.bytes, here.memory.on_gpus(layers))
        });
        let running = Running {
            expires_at: rfc3339(FOREVER),
            size_vram,
            context_length: entry.meta.n_ctx,
        };
        Listed {
            size,
            ..entry.listed(Some(running))
        }
    });
    let listed: Vec<Listed<'_>> = listed.collect();
    Ok(json!({"models": listed}).to_string().into_bytes())
}

impl Here {
    fn props(&self) -> Result<Props, Problem> {
        from_engine(&self.props)
    }
}

impl Memory {
    /// An estimate: all layers, and the output that counts as one, are taken to be of one size.
    fn on_gpus(self, layers: u64) -> u64 {
        let all = layers + 1;
        let share = u64::from(self.gpu_layers).min(all);
        (u128::from(self.bytes) * u128::from(share) / u128::from(all)) as u64
    }
}

/// Which model a request to `/api/show` is about.
///
/// # Errors
/// A problem that names the field that is wrong.
pub fn shown(body: &[u8]) -> Result<String, Problem> {
    #[derive(Deserialize)]
    struct Fields {
        model: Option<String>,
        /// Its older name.
        name: Option<String>,
    }
    let fields: Fields = read(body)?;
    model(fields.model.filter(|model| !model.is_empty()).or(fields.name))
}

/// `POST /api/show`, from a list as the engine has it at [`MODELS_PATH`]. A model of another node is shown
/// with the context that it has and with what every model can do that makes text.
///
/// # Errors
/// Where there is no such model, or the list or the engine's answer cannot be read.
pub fn show(name: &str, models: &[u8], here: Option<&Here>) -> Result<Vec<u8>, Problem> {
    let models: Models = from_engine(models)?;
    let entry = models.find(name)?;
    let own = here.filter(|here| here.model == entry.id);
    let props = own.map_or_else(|| Ok(Props::default()), Here::props)?;
    let shown = Shown {
        modified_at: entry.meta.modified.map(rfc3339),
        modelfile: format!("FROM {}\n", tagged_name(entry)),
        parameters: props.parameters(entry.meta.n_ctx),
        template: &props.chat_template,
        details: entry.meta.details(),
        model_info: props.info(&entry.meta),
        capabilities: props.capabilities(&entry.meta),
    };
    serde_json::to_vec(&shown).map_err(|error| Problem::engine(error.to_string()))
}

/// A request that only loads a model, which is loaded.
#[derive(Debug)]
pub struct Load {
    model: String,
    shape: Shape,
}

impl Load {
    pub(super) fn new(model: String, shape: Shape) -> Self {
        Self { model, shape }
    }

    /// The answer, from what the engine says at [`MODELS_PATH`].
    ///
    /// # Errors
    /// Where there is no such model, or the engine's list cannot be read.
    pub fn answer(&self, models: &[u8]) -> Result<Vec<u8>, Problem> {
        let models: Models = from_engine(models)?;
        let entry = models.find(&self.model)?;
        Ok(Reply::loaded(&self.model, self.shape, entry.created))
    }
}

fn from_engine<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(answer).map_err(|error| {
        Problem::engine(format!(
            "what the engine says of its model cannot be read: {error}"
        ))
    })
}

fn tagged_name(entry: &Entry) -> String {
    super::tagged(&entry.id)
}

impl Models {
    fn find(&self, name: &str) -> Result<&Entry, Problem> {
        let found = self
            .data
            .iter()
            .find(|entry| entry.id == name || entry.id == super::untagged(name));
        found.ok_or_else(|| {
            let known: Vec<String> = self.data.iter().map(tagged_name).collect();
            Problem::not_found(format!(
                "model '{name}' not found: this server has {}",
                known.join(", ")
            ))
        })
    }
}

impl Entry {
    fn listed(&self, running: Option<Running>) -> Listed<'_> {
        Listed {
            name: tagged_name(self),
            model: tagged_name(self),
            modified_at: self.meta.modified.map(rfc3339),
            size: self.meta.size,
            digest: self.digest(),
            details: self.meta.details(),
            running,
        }
    }

    /// Tells models apart, and one from what it was before its file changed. Ollama's digest is that of a
    /// description of the model, too; weights are too many to be hashed.
    fn digest(&self) -> String {
        let Meta {
            architecture,
            n_params,
            size,
            modified,
            file_type,
            ..
        } = &self.meta;
        let about = json!([self.id, architecture, n_params, size, modified, file_type]).to_string();
        let mut digest = String::with_capacity(64);
        for byte in Sha256::digest(about.as_bytes()) {
            // Writing to memory cannot fail.
            let _ = write!(digest, "{byte:02x}");
        }
        digest
    }
}

impl Meta {
    fn details(&self) -> Details<'_> {
        Details::new(&self.architecture, self.n_params, self.file_type)
    }

    fn makes_text(&self) -> bool {
        self.n_ctx > 0
    }
}

impl Props {
    fn layers(&self, architecture: &str) -> u64 {
        let count = self.model_metadata.get(&format!("{architecture}.block_count"));
        count.and_then(Value::as_u64).unwrap_or(0)
    }

    /// The metadata of the file, as Ollama has it: without the template, with the count of parameters.
    fn info(&self, meta: &Meta) -> Map<String, Value> {
        let mut info = self.model_metadata.clone();
        info.shift_remove("tokenizer.chat_template");
        info.insert("general.parameter_count".to_owned(), json!(meta.n_params));
        info
    }

    /// What holds where a request is silent, in the lines of a Modelfile.
    fn parameters(&self, context: u32) -> String {
        let mut lines = format!("num_ctx {context}");
        for (name, value) in &self.default_generation_settings.params {
            // Writing to memory cannot fail.
            let _ = write!(lines, "\n{name} {value}");
        }
        lines
    }

    fn capabilities(&self, meta: &Meta) -> Vec<&'static str> {
        let pooling = self
            .model_metadata
            .get(&format!("{}.pooling_type", meta.architecture));
        let ranks = pooling.is_some_and(|kind| *kind == POOLING_RANK);
        let all = [
            ("completion", meta.makes_text()),
            (
                "tools",
                meta.makes_text() && self.chat_template_caps.supports_tools,
            ),
            ("insert", meta.makes_text() && self.infill),
            ("thinking", meta.makes_text() && self.thinks()),
            ("embedding", !ranks && (pooling.is_some() || !meta.makes_text())),
        ];
        let able = all.into_iter().filter(|(_, able)| *able);
        able.map(|(name, _)| name).collect()
    }

    /// Whether the template has a place for thoughts.
    fn thinks(&self) -> bool {
        let marks = ["enable_thinking", "reasoning_content", "<think>"];
        self.chat_template_caps.supports_reasoning_effort
            || marks.iter().any(|mark| self.chat_template.contains(mark))
    }
}
