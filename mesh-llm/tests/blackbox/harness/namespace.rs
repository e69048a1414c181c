//! File systems that only one process sees, and that are gone with it: full ones, read-only ones.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// What a process finds mounted.
#[derive(Debug, Clone)]
pub struct Namespace {
    script: String,
}

/// The `unshare` that is permitted here: of mounts alone for root, with a user namespace for others.
static UNSHARE: LazyLock<Option<Vec<&'static str>>> = LazyLock::new(|| {
    let ways = [vec!["--mount"], vec!["--user", "--map-root-user", "--mount"]];
    ways.into_iter().find(|way| {
        let script = "mount -t tmpfs -o size=64k none /tmp";
        let tried = Command::new("unshare")
            .args(way)
            .args(["sh", "-c", script])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    })
});

/// Whether this machine permits it; says so where it does not.
pub fn available(test: &str) -> bool {
    if UNSHARE.is_none() {
        eprintln!("SKIPPED: {test}: this user may not mount file systems, not even in a namespace");
    }
    UNSHARE.is_some()
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_str().unwrap())
}

impl Namespace {
    /// With an empty file system of this many bytes and files at `folder`.
    pub fn small(folder: &Path, bytes: u64, files: u64) -> Self {
        let folder = quoted(folder);
        let options = format!("size={bytes},nr_inodes={files},mode=0700");
        Self {
            script: format!("mount -t tmpfs -o {options} none {folder}"),
        }
    }

    /// With `folder` as it is, but read-only.
    pub fn read_only(folder: &Path) -> Self {
        let folder = quoted(folder);
        Self {
            script: format!("mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"),
        }
    }

    /// A command that runs `program` in it, under the same process number.
    pub fn command(&self, program: &Path) -> Command {
        let way = UNSHARE
            .as_ref()
            .expect("asked before whether namespaces are available");
        let mut command = Command::new("unshare");
        command
            .args(way)
            .args(["sh", "-c"])
            .arg(format!("{} && exec \"$@\"", self.script))
            .arg("sh")
            .arg(program);
        command
    }
}
