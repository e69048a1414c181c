//! What the end of a process means, in words.

use std::process::ExitStatus;

/// Completes the sentence "the engine …".
pub fn words(status: ExitStatus) -> String {
    if let Some(words) = signal(status) {
        return words;
    }
    match status.code() {
        Some(0) => "ended without having been asked to".to_owned(),
        Some(101) => "ended by a panic (exit code 101)".to_owned(),
        Some(code) => format!("ended with exit code {code}"),
        None => "ended for an unknown reason".to_owned(),
    }
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<String> {
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt;

    let number = status.signal()?;
    let known = [
        (Signal::KILL, "SIGKILL", Some("out of memory?")),
        (
            Signal::ABORT,
            "SIGABRT",
            Some("a fault that llama.cpp found itself"),
        ),
        (
            Signal::SEGV,
            "SIGSEGV",
            Some("an access to memory that is not its own"),
        ),
        (
            Signal::BUS,
            "SIGBUS",
            Some("was the model's file changed or its disk removed?"),
        ),
        (Signal::ILL, "SIGILL", Some("built for another processor?")),
        (Signal::FPE, "SIGFPE", None),
        (Signal::TERM, "SIGTERM", None),
        (Signal::INT, "SIGINT", None),
        (Signal::HUP, "SIGHUP", None),
        (Signal::QUIT, "SIGQUIT", None),
        (Signal::PIPE, "SIGPIPE", None),
        (Signal::XCPU, "SIGXCPU", Some("out of the processor time allowed")),
        (
            Signal::SYS,
            "SIGSYS",
            Some("a system call that a sandbox forbids"),
        ),
    ];
    let words = known.iter().find(|(signal, ..)| signal.as_raw() == number);
    Some(match words {
        Some((_, name, Some(why))) => format!("was killed by {name} ({why})"),
        Some((_, name, None)) => format!("was killed by {name}"),
        None => format!("was killed by signal {number}"),
    })
}

#[cfg(not(unix))]
fn signal(_status: ExitStatus) -> Option<String> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn an_end_is_told_by_what_it_means() {
        let words = |raw| words(ExitStatus::from_raw(raw));
        assert_eq!(words(9), "was killed by SIGKILL (out of memory?)");
        assert_eq!(
            words(6 | 0x80),
            "was killed by SIGABRT (a fault that llama.cpp found itself)"
        );
        assert_eq!(words(15), "was killed by SIGTERM");
        assert_eq!(words(34), "was killed by signal 34");
        assert_eq!(words(0), "ended without having been asked to");
        assert_eq!(words(1 << 8), "ended with exit code 1");
        assert_eq!(words(101 << 8), "ended by a panic (exit code 101)");
    }
}
