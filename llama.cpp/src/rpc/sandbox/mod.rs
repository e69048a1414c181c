//! What a worker gives up once it listens: files that are none of its business (Landlock), system calls
//! that only an intruder would make (seccomp), and the powers of root.
//!
//! A worker computes what strangers send. Should one of them find a hole in ggml or in a driver, what it
//! gets is a process that reads models, talks to GPUs and to sockets, and starts nothing.
//!
//! **When to call it.** Landlock and the loss of powers hold for the thread that asks for them and for
//! those that it starts later, Landlock from Linux 7.0 on for all; seccomp holds for all. So: open the listener, let ggml find its
//! devices (drivers start threads of their own, load libraries, and may start a helper), then
//! [`Sandbox::enforce`], and only then start threads that read from sockets. What is open stays usable.
//!
//! **What it does not keep from anybody**: reading model files and system libraries, connecting to any
//! address, using all memory and all GPUs, and on kernels before 6.12 signals to the user's processes. A
//! thread that Landlock does not hold shares its memory with those that it holds: an intruder who runs
//! code can get at it. It is a second line behind checking what comes from the wire, not the first.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod powers;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::fmt;
use std::path::PathBuf;

/// What a worker keeps. It holds nothing back until [`enforce`](Self::enforce).
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is restricted before `enforce`"]
pub struct Sandbox {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    has_gpus: bool,
}

/// What a worker has given up, for its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is enforced from now on.
    pub enforced: Vec<String>,
    /// What is not, and why. Empty on a kernel that can do it all.
    pub missing: Vec<String>,
}

impl Sandbox {
    /// Keeps the system's libraries, `/proc`, `/sys`, and internet sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps reading what is at or below this path, such as a model directory.
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// Keeps reading and writing this file; of a directory: making, replacing and removing files in it and
    /// below. A file that is replaced whole, as the memory of fingerprints is, needs its directory.
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }

    /// Keeps the GPUs' devices, and making local sockets, as CUDA does for itself.
    pub fn gpus(mut self) -> Self {
        self.has_gpus = true;
        self
    }

    /// Gives up everything else, for good. What the kernel lacks is left out and said. To be called before
    /// threads are started, as the [module](self) says.
    #[cfg(target_os = "linux")]
    pub fn enforce(&self) -> Report {
        let mut report = Report::default();
        // In this order: seccomp would refuse none of Landlock's calls today, and shall not have to know.
        paths::enforce(self, &mut report);
        powers::enforce(&mut report);
        calls::enforce(self.has_gpus, &mut report);
        report
    }

    /// Gives up everything else, for good. Says that this system has no way to.
    #[cfg(not(target_os = "linux"))]
    pub fn enforce(&self) -> Report {
        Report {
            enforced: Vec::new(),
            missing: vec!["a sandbox (there is one on Linux only)".to_owned()],
        }
    }
}

impl Report {
    /// Whether all is enforced that could be.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |lines: &[String]| match lines {
            [] => "nothing".to_owned(),
            lines => lines.join("; "),
        };
        write!(f, "enforced: {}", list(&self.enforced))?;
        if !self.is_whole() {
            write!(f, "; not enforced: {}", list(&self.missing))?;
        }
        Ok(())
    }
}
