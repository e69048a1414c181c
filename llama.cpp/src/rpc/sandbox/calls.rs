//! seccomp: which system calls a process may still make.
//!
//! A list of what is refused, and none of what is allowed: GPU drivers make calls that nobody has written
//! down. Refused calls fail as they do for who has no right to them.

use super::Report;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Calls that are refused whatever their arguments are.
const REFUSED: &[i64] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_setns,
    libc::SYS_unshare,
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Parts of the kernel in which holes are found again and again.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // It would make other calls on one's behalf, past this list.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    // Of one machine's kind.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// What marks a call of the x32 kind, which kernels for x86-64 may know beside their own.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Calls that have a number of their own there: execve, ptrace, kexec_load, process_vm_readv,
/// process_vm_writev, execveat.
#[cfg(target_arch = "x86_64")]
const REFUSED_X32: [i64; 6] = [520, 521, 528, 539, 540, 545];

/// `TIOCSTI` and `TIOCLINUX`, with which `ioctl` types into the terminal of who started the process. libc has
/// them in a type that differs between systems.
const TYPING: [u64; 2] = [0x5412, 0x541c];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(super) fn enforce(has_gpus: bool, report: &mut Report) {
    match restrict(has_gpus) {
        Ok(()) => {
            let sockets = if has_gpus {
                "internet and local"
            } else {
                "internet"
            };
            report.enforced.push(format!(
                "no other programs, processes, mounts, kernel interfaces; sockets: {sockets} (seccomp)"
            ));
            report.enforced.push("no new privileges".to_owned());
        }
        Err(error) => report.missing.push(format!("system calls (seccomp: {error})")),
    }
}

fn restrict(has_gpus: bool) -> Result<(), seccompiler::Error> {
    let refusals = program(rules(has_gpus)?, libc::EPERM)?;
    // Its arguments are in memory, where a filter cannot look. libc takes `clone` where it is not there.
    let unknown = program(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    seccompiler::apply_filter_all_threads(&refusals)?;
    seccompiler::apply_filter_all_threads(&unknown)
}

/// The filter that lets everything pass but these, which fail with this error.
fn program(rules: Rules, error: i32) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    // Error numbers are small and positive.
    let refuse = SeccompAction::Errno(error as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()
}

fn rules(has_gpus: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    rules.insert(
        libc::SYS_clone,
        vec![when(&[(
            0,
            SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64),
            0,
        )])?],
    );
    let typing = TYPING
        .iter()
        .map(|&kind| when(&[(1, SeccompCmpOp::Eq, kind)]))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, typing);
    // Netlink tells a program its network interfaces, and a driver its devices.
    let mut families = vec![libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    if has_gpus {
        families.push(libc::AF_UNIX);
    }
    let other: Vec<_> = families
        .into_iter()
        .map(|family| (0, SeccompCmpOp::Ne, family as u64))
        .collect();
    rules.insert(libc::SYS_socket, vec![when(&other)?]);
    // The limits of others.
    rules.insert(libc::SYS_prlimit64, vec![when(&[(0, SeccompCmpOp::Ne, 0)])?]);
    #[cfg(target_arch = "x86_64")]
    {
        let own: Vec<(i64, Vec<SeccompRule>)> = rules
            .iter()
            .map(|(call, rules)| (X32 | *call, rules.clone()))
            .collect();
        rules.extend(own);
        rules.extend(REFUSED_X32.map(|call| (X32 | call, Vec::new())));
    }
    Ok(rules)
}

/// The rule that holds where all these arguments, of which the lower 4 bytes count, are so.
fn when(arguments: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    let conditions = arguments.iter().map(|(index, compare, value)| {
        SeccompCondition::new(*index, SeccompCmpArgLen::Dword, compare.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
