//! The sandbox, tried out by processes of their own: this program, started again.

use super::{Report, Sandbox};
use crate::gguf::random::{self, Architecture};
use crate::rpc::files::{Identity, Library, Memory, WeightFile};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// What the started process is to do; without it, `child` is not one.
const FOLDER: &str = "MESH_LLM_TEST_SANDBOX";
const GPUS: &str = "MESH_LLM_TEST_SANDBOX_GPUS";

fn start(has_gpus: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    for name in ["models", "state", "private"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("file"), name).unwrap();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "rpc::sandbox::tests::child",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder.path());
    if has_gpus {
        command.env(GPUS, "1");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn a_worker_in_its_sandbox_can_do_its_work_and_nothing_else() {
    for has_gpus in [false, true] {
        let text = start(has_gpus);
        assert!(text.contains("did its work"), "{text}");
        println!("{text}");
    }
}

#[test]
#[ignore = "the other test starts it"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let has_gpus = std::env::var_os(GPUS).is_some();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let blob = folder.join("models/blob");
    random::small(Architecture::Llama, 1).write(&blob).unwrap();
    std::os::unix::fs::symlink("blob", folder.join("models/model.gguf")).unwrap();
    let wanted = WeightFile::open(&blob)
        .unwrap()
        .identify(&Memory::in_process())
        .unwrap();
    let memory = Memory::new(Some(folder.join("state/fingerprints.json")), Duration::ZERO);
    let library = Library::new([folder.join("models")], memory).unwrap();
    let mut sandbox = Sandbox::new()
        .read(folder.join("models"))
        .write(folder.join("state"))
        .read(folder.join("none"));
    if has_gpus {
        sandbox = sandbox.gpus();
    }
    let report = sandbox.enforce();
    println!("{report}");
    assert!(report.to_string().contains("none, which is not there"));
    // What is not enforced is said, so the rest of this must hold.
    let has = |what: &str| report.enforced.iter().any(|line| line.contains(what));
    thread::scope(|scope| {
        scope.spawn(|| work(&folder, &listener, &library, &wanted));
        scope.spawn(|| {
            if has("Landlock") {
                no_files(&folder, &report);
            }
            if has("seccomp") {
                no_calls(has_gpus);
            }
        });
    });
    println!("did its work");
}

/// What a worker does must go on.
fn work(folder: &Path, listener: &TcpListener, library: &Library, wanted: &Identity) {
    assert_eq!(fs::read(folder.join("models/file")).unwrap(), b"models");
    let model = library.find(wanted).found.unwrap();
    let mut weights = [0; 64];
    model.read_into("token_embd.weight", 0, &mut weights).unwrap();
    assert_ne!(weights, [0; 64]);
    let state = fs::read_to_string(folder.join("state/fingerprints.json")).unwrap();
    assert!(state.contains(&wanted.fingerprint.to_string()), "{state}");

    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().0.write_all(b"x").unwrap());
        let mut byte = [0];
        TcpStream::connect(address)
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        assert_eq!(&byte, b"x");
    });
    fs::read_to_string("/proc/meminfo").unwrap();
    fs::read_dir("/sys/devices").unwrap();
    fs::read_dir("/dev").unwrap();
    File::options().read(true).write(true).open("/dev/null").unwrap();
    std::net::ToSocketAddrs::to_socket_addrs("localhost:80").unwrap();
}

fn no_files(folder: &Path, report: &Report) {
    let denied = |result: std::io::Result<()>, what: &str| {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
    };
    let private = folder.join("private/file");
    denied(File::open(&private).map(drop), "reading another file");
    denied(fs::read_dir(folder).map(drop), "listing another directory");
    denied(File::open("/etc/passwd").map(drop), "reading accounts");
    let through = Path::new("/proc/self/root").join(private.strip_prefix("/").unwrap());
    denied(
        File::open(through).map(drop),
        "reading another file through /proc",
    );
    let parent = std::os::unix::process::parent_id();
    denied(
        fs::read(format!("/proc/{parent}/environ")).map(drop),
        "reading another process's environment",
    );
    let model = folder.join("models/file");
    denied(
        File::options().append(true).open(&model).map(drop),
        "writing to a model",
    );
    denied(
        File::create(folder.join("models/new")).map(drop),
        "making a model",
    );
    denied(fs::remove_file(&model), "removing a model");
    denied(
        fs::rename(folder.join("state/file"), folder.join("models/other")),
        "moving a file among models",
    );
    denied(
        std::os::unix::fs::symlink(&private, folder.join("state/link")),
        "making a link",
    );
    if !report.missing.iter().any(|line| line.contains("listeners")) {
        denied(TcpListener::bind("127.0.0.1:0").map(drop), "listening once more");
    }
}

fn no_calls(has_gpus: bool) {
    for program in ["/bin/true", "/proc/self/exe"] {
        let error = Command::new(program).status().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    let refused = |result: libc::c_long, what: &str| {
        let error = std::io::Error::last_os_error();
        assert_eq!(result, -1, "{what}");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{what}: {error}");
    };
    assert_eq!(status("CapInh"), "0000000000000000");
    let kept = u64::from_str_radix(&status("CapPrm"), 16).unwrap();
    assert_eq!(kept & !0x0080_4006, 0, "{kept:x}");
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: each of these calls gets what it would answer with an error, were it made.
    unsafe {
        refused(libc::syscall(libc::SYS_execve, null, null, null), "execve");
        refused(
            libc::syscall(libc::SYS_execveat, -1, null, null, null, 0),
            "execveat",
        );
        refused(libc::syscall(libc::SYS_ptrace, -1, 0, 0, 0), "ptrace");
        refused(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER), "unshare");
        refused(libc::syscall(libc::SYS_setns, -1, 0), "setns");
        refused(libc::syscall(libc::SYS_mount, null, null, null, 0, null), "mount");
        refused(libc::syscall(libc::SYS_bpf, -1, null, 0), "bpf");
        refused(libc::syscall(libc::SYS_io_uring_setup, 0, null), "io_uring");
        refused(
            libc::syscall(libc::SYS_clone, libc::SIGCHLD, null, null, null, 0),
            "clone",
        );
        refused(libc::syscall(libc::SYS_prlimit64, 1, 0, null, null), "prlimit");
        refused(libc::syscall(libc::SYS_ioctl, -1, libc::TIOCSTI, null), "typing");
        for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG] {
            refused(
                libc::syscall(libc::SYS_socket, family, libc::SOCK_RAW, 0),
                "socket",
            );
        }
    }
    let local = UnixStream::connect("/nowhere").unwrap_err();
    assert_eq!(local.kind() == ErrorKind::PermissionDenied, !has_gpus, "{local}");
    thread::spawn(|| ()).join().unwrap();
    assert_eq!(status("NoNewPrivs"), "1");
}

/// What the kernel says of this thread.
fn status(key: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(name, _)| *name == key).unwrap().1;
    value.trim().to_owned()
}
