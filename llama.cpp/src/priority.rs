//! Who gets a core first: threads that carry answers, before those that compute them.
//!
//! Computing uses every core. A thread that carries a token needs one for microseconds, and waited
//! for up to a scheduler's slice, 3 to 6 ms. Linux only; elsewhere, and where the kernel refuses,
//! threads stay as they are.

#[cfg(target_os = "linux")]
use std::time::Duration;

/// Slice of threads that carry answers, the shortest that Linux takes: a thread with a shorter slice
/// does not wait for the end of a longer one.
#[cfg(target_os = "linux")]
const SHORTEST_SLICE: Duration = Duration::from_micros(100);

/// The kernel's own slice: a thread would have that of the one that started it.
#[cfg(target_os = "linux")]
const USUAL_SLICE: Duration = Duration::ZERO;

/// The nice value that gives way to others: a third of their share. The lowest, a seventieth of it, starved a
/// program beside a few busy ones of the same session: nodes of a split took each other for dead, as signs of life
/// wait for locks that threads which compute hold.
#[cfg(target_os = "linux")]
const GIVES_WAY: i32 = 5;

/// Makes the calling thread one that carries answers: it gets a core at once when it wakes, and no
/// more of it than others.
pub fn carry_answers() {
    #[cfg(target_os = "linux")]
    set(0, SHORTEST_SLICE);
}

/// Makes the calling thread, and those that it starts, ones that compute: others of this program go
/// first.
///
/// Only where the kernel groups threads by session (`autogroup`, as distributions have it) or by
/// container, so that a low priority counts within the program and gives nothing away to others.
pub fn compute() {
    #[cfg(target_os = "linux")]
    set(if grouped() { GIVES_WAY } else { 0 }, USUAL_SLICE);
}

/// Sets nice value and slice of the calling thread (`sched_setattr(2)`; `sched_runtime` is a slice
/// since Linux 6.12 and nothing before).
#[cfg(target_os = "linux")]
fn set(nice: i32, slice: Duration) {
    // A lower one than what it has may be forbidden, and was not meant by whoever set it.
    let nice = rustix::process::getpriority_process(None).map_or(nice, |own| own.max(nice));
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: slice.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of a struct that lives through the call; 0 is the
    // calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "this thread keeps its priority");
    }
}

#[cfg(target_os = "linux")]
fn grouped() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled")
        .is_ok_and(|enabled| enabled.trim() == "1")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    #[test]
    fn a_compute_thread_and_its_children_come_last_and_others_stay() {
        let before = getpriority_process(None).unwrap();
        let inherited = std::thread::spawn(|| {
            super::compute();
            let own = getpriority_process(None).unwrap();
            let child = std::thread::spawn(|| getpriority_process(None).unwrap())
                .join()
                .unwrap();
            (own, child)
        });
        let (own, child) = inherited.join().unwrap();
        assert_eq!(own, child);
        assert_eq!(
            own,
            if super::grouped() {
                super::GIVES_WAY
            } else {
                before
            }
        );
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
