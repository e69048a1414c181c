//! How the child is started.

use crate::exit::Exit;
use llama_engine::rpc::door::DOOR_VARIABLE;
use llama_engine::server::options::{Draft, Options, Origin, RPC_SECRET_VARIABLE, SECRET_VARIABLE};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The name of the child, as a program and as a command of this binary.
pub const LLAMA_SERVER: &str = "llama-server";

/// The name of the child that lends devices.
pub const RPC_SERVER: &str = "rpc-server";

/// The program that is the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// This binary, under its command `llama-server`.
    Itself(PathBuf),
    /// A `llama-server` elsewhere.
    At(PathBuf),
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// This build has none inside.
    #[error(
        "this build of mesh-llm has no engine inside; name a folder that holds `llama-server` with --bin-dir"
    )]
    NotBuiltIn,
    /// The folder has none.
    #[error("{} cannot be run: {cause}; --bin-dir names the folder that holds `llama-server`", path.display())]
    NotThere {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it will not do.
        cause: String,
    },
    /// This binary's own path is unknown.
    #[error(
        "the path of mesh-llm itself is unknown: {0}; name a folder that holds `llama-server` with --bin-dir"
    )]
    Unknown(io::Error),
}

impl ProgramError {
    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotThere { .. } => Exit::FILE,
            Self::NotBuiltIn | Self::Unknown(_) => Exit::CONFIGURATION,
        }
    }
}

impl Program {
    /// The one in `folder` or, where none is named, this binary.
    pub fn find(folder: Option<&Path>) -> Result<Program, ProgramError> {
        match folder {
            Some(folder) => {
                let path = folder
                    .join(LLAMA_SERVER)
                    .with_extension(std::env::consts::EXE_EXTENSION);
                match runnable(&path) {
                    Ok(()) => Ok(Program::At(path)),
                    Err(cause) => Err(ProgramError::NotThere { path, cause }),
                }
            }
            None if cfg!(feature = "engine") => std::env::current_exe()
                .map(Program::Itself)
                .map_err(ProgramError::Unknown),
            None => Err(ProgramError::NotBuiltIn),
        }
    }

    fn command(&self) -> Command {
        match self {
            Program::Itself(path) => itself(path, LLAMA_SERVER),
            Program::At(path) => Command::new(path),
        }
    }

    /// The same program as the child that lends devices.
    pub(super) fn worker(&self) -> Command {
        match self {
            Program::Itself(path) => itself(path, RPC_SERVER),
            // `--bin-dir` has both.
            Program::At(path) => Command::new(
                path.with_file_name(RPC_SERVER)
                    .with_extension(std::env::consts::EXE_EXTENSION),
            ),
        }
    }

    /// Whether it may have been built for GPUs: of a program elsewhere, nobody knows.
    pub fn may_have_gpus(&self) -> bool {
        let of_this = cfg!(any(
            feature = "cuda",
            feature = "metal",
            feature = "vulkan",
            feature = "rocm"
        ));
        matches!(self, Program::At(_)) || of_this
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Program::Itself(path) | Program::At(path) => path,
        }
    }
}

/// This binary under a command of its own.
fn itself(path: &Path, child: &str) -> Command {
    let mut command = Command::new(path);
    command.arg(child);
    command
}

/// Whether the file looks like a program; in words why not.
fn runnable(path: &Path) -> Result<(), String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o111 == 0 {
            return Err("it is not executable".to_owned());
        }
    }
    Ok(())
}

/// Everything that a start of the child needs.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What is run.
    pub program: Program,
    /// What it is told.
    pub options: Options,
}

impl Launch {
    /// Starts the child. Its three standard streams are pipes that this process holds.
    pub(super) fn start(&self) -> io::Result<Child> {
        let mut command = self.program.command();
        command
            .args(arguments(&self.options))
            .env_remove(SECRET_VARIABLE)
            .env_remove(RPC_SECRET_VARIABLE)
            .env_remove(DOOR_VARIABLE)
            .envs(self.options.secret.iter().map(|secret| (SECRET_VARIABLE, secret)))
            .envs(
                self.options
                    .rpc_secret
                    .iter()
                    .map(|secret| (RPC_SECRET_VARIABLE, secret)),
            )
            .envs(
                self.options
                    .door
                    .iter()
                    .map(|door| (DOOR_VARIABLE, door.to_string())),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C is for the daemon, which then ends the child in order.
        #[cfg(unix)]
        command.process_group(0);
        command.spawn()
    }
}

/// The arguments that say what `options` say; the command `llama-server` reads them back.
pub fn arguments(options: &Options) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
    add("--listen", options.listen.to_string().into());
    add("--model", options.model.clone().into());
    add("--model-name", options.model_name.clone().into());
    let numbers = [
        ("--ctx-size", options.context),
        ("--parallel", options.slots),
        ("--threads", options.threads),
        ("--gpu-layers", options.gpu_layers),
        ("--batch-size", options.batch_size),
        ("--queue", options.queue),
    ];
    for (flag, number) in numbers {
        if let Some(number) = number {
            add(flag, number.to_string().into());
        }
    }
    let limits = [
        ("--max-memory", options.max_memory),
        ("--max-vram", options.max_vram),
    ];
    for (flag, bytes) in limits {
        if let Some(bytes) = bytes {
            add(flag, bytes.to_string().into());
        }
    }
    for device in &options.devices {
        add("--device", device.into());
    }
    if let Some(save) = &options.slot_save {
        add("--slot-save-dir", save.folder.clone().into());
        add("--slot-save-bytes", save.most_bytes.to_string().into());
    }
    for worker in &options.rpc {
        add("--rpc", worker.into());
    }
    if !options.tensor_split.is_empty() {
        let shares: Vec<_> = options.tensor_split.iter().map(u32::to_string).collect();
        add("--tensor-split", shares.join(",").into());
    }
    let speculation = &options.speculation;
    if let Some(draft) = &speculation.draft {
        add("--draft", draft.path.clone().into());
    }
    add("--draft-max", speculation.most_window.to_string().into());
    add("--draft-min-p", speculation.min_p.to_string().into());
    add("--speculate", speculation.mode.word().into());
    if let Some(windows) = speculation.windows {
        add("--draft-windows", windows.to_string().into());
    }
    if let Some(file) = &options.fingerprints {
        add("--fingerprints", file.into());
    }
    add("--cache-type-k", options.cache_type_k.word().into());
    add("--cache-type-v", options.cache_type_v.word().into());
    add("--flash-attn", options.flash_attention.word().into());
    add("--log-format", options.log.word().into());
    let found = |draft: &Draft| draft.origin == Origin::Found;
    arguments.extend(
        speculation
            .draft
            .as_ref()
            .filter(|draft| found(draft))
            .map(|_| "--draft-found".into()),
    );
    if options.even_split {
        arguments.push("--even-split".into());
    }
    arguments.extend(std::iter::repeat_n("-v".into(), options.verbose.into()));
    arguments
}
