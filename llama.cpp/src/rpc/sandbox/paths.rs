//! Landlock: which files and ports a process may still use.

use super::{Report, Sandbox};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictSelfAttr,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::fs;
use std::path::{Path, PathBuf};

/// The newest rights that are asked for. A kernel that knows fewer enforces those.
const NEWEST: ABI = ABI::V9;

/// What everybody may read anyway, and libraries, drivers and name resolution need.
const PUBLIC: [&str; 18] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    // Of NixOS: libraries, and those of GPU drivers.
    "/nix/store",
    "/run/opengl-driver",
    "/etc/ld.so.cache",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/localtime",
    "/etc/vulkan",
    "/etc/OpenCL",
    "/proc",
    "/sys",
];

/// Devices that a process may need whatever it does.
const PLAIN_DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// How the names of GPUs' devices begin: of NVIDIA's, of Tegra's, of all that Linux itself drives, of
/// AMD's for computing, of those in WSL.
const GPU_DEVICES: [&str; 8] = [
    "nvidia", "nvhost", "nvmap", "nvgpu", "nvsciipc", "dri", "kfd", "dxg",
];

pub(super) fn enforce(sandbox: &Sandbox, report: &mut Report) {
    let mut skipped = Vec::new();
    let others = other_threads();
    match restrict(sandbox, &mut skipped) {
        Ok(status) => describe(&status, sandbox, others, report),
        Err(error) => report.missing.push(format!("files (Landlock: {error})")),
    }
    report.missing.extend(skipped);
}

fn restrict(sandbox: &Sandbox, skipped: &mut Vec<String>) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        // It listens already. Connecting is not held back: peers have any port.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .all_threads(true)?;
    for (paths, access) in [(&sandbox.read, read), (&sandbox.write, write)] {
        for path in paths {
            match rule(path, access) {
                Some(rule) => ruleset = ruleset.add_rule(rule)?,
                None => skipped.push(format!("access to {}, which is not there", path.display())),
            }
        }
    }
    let public = PUBLIC.iter().map(|path| (PathBuf::from(path), read));
    let dev = Path::new("/dev");
    let plain = PLAIN_DEVICES.iter().map(|name| (dev.join(name), device));
    let gpus = gpu_devices(sandbox.has_gpus)
        .into_iter()
        .map(|path| (path, device));
    // Drivers look for their devices by listing the directory.
    let listing = [(dev.to_owned(), AccessFs::ReadDir.into())];
    for (path, access) in public.chain(plain).chain(gpus).chain(listing) {
        // Not every system has all of them.
        if let Some(rule) = rule(&path, access) {
            ruleset = ruleset.add_rule(rule)?;
        }
    }
    ruleset.restrict_self()
}

/// The rule that gives access to a path, if it is there.
fn rule(path: &Path, access: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    let is_folder = fs::metadata(path).ok()?.is_dir();
    let access = if is_folder {
        access
    } else {
        // The kernel refuses rights that only directories have.
        access & AccessFs::from_file(NEWEST)
    };
    Some(PathBeneath::new(PathFd::new(path).ok()?, access))
}

fn gpu_devices(has_gpus: bool) -> Vec<PathBuf> {
    let entries = has_gpus.then(|| fs::read_dir("/dev").ok()).flatten();
    let is_gpu = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        GPU_DEVICES.iter().any(|begin| name.starts_with(begin.as_bytes()))
    };
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_gpu)
        .collect()
}

/// How many threads there are besides the one that asks.
fn other_threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count().saturating_sub(1))
}

fn describe(status: &RestrictionStatus, sandbox: &Sandbox, others: usize, report: &mut Report) {
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        report
            .missing
            .push("files (this kernel has no Landlock, or it is not switched on)".to_owned());
        return;
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        report
            .missing
            .push("files (Landlock did not take effect)".to_owned());
        return;
    }
    let number = effective_abi as i32;
    report
        .enforced
        .push(format!("files only as needed (Landlock {number})"));
    // What each version of Landlock brought.
    for (since, what) in [
        (ABI::V3, "cutting files short"),
        (ABI::V4, "no new TCP listeners"),
        (ABI::V5, "no ioctl on other devices"),
        (ABI::V6, "no signals to others, no abstract sockets of others"),
        (ABI::V9, "no named local sockets of others"),
    ] {
        // Without GPUs, seccomp sees to it that there are no local sockets.
        let is_needless = since == ABI::V9 && !sandbox.has_gpus;
        if effective_abi < since && !is_needless {
            report
                .missing
                .push(format!("{what} (needs Landlock {})", since as i32));
        }
    }
    if !status.all_threads && others > 0 {
        report.missing.push(format!(
            "files only as needed, in the {others} threads that were there before (needs Landlock 8)"
        ));
    }
}
