//! The seccomp filter: system calls that a process which starts no programs does not need.
//!
//! The calls are refused, not fatal: a library that tries one gets EPERM.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// The refused system calls.
const REFUSED: &[libc::c_long] = &[
    // Start programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Inspect or change other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Change what paths mean, or open files without a path.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Interfaces of the kernel with a history of faults, and one whose requests pass by this filter.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Change the system.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// The system calls that are refused to a process without network. It may still make pairs of sockets.
const REFUSED_WITHOUT_NETWORK: &[libc::c_long] =
    &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];

/// Why the filter cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("{0}")]
    Build(#[from] seccompiler::BackendError),
    #[error("{0}")]
    Install(#[from] seccompiler::Error),
}

/// Refuses the system calls to the calling thread, and to all threads that it starts.
///
/// # Errors
/// Returns an error if the kernel has no seccomp, or this processor is none that filters are built for.
pub(crate) fn refuse(has_network: bool) -> Result<(), FilterError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let of_network = if has_network { &[] } else { REFUSED_WITHOUT_NETWORK };
    let rules: BTreeMap<i64, Vec<_>> = REFUSED.iter().chain(of_network).map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let program = BpfProgram::try_from(SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?)?;
    Ok(apply_filter(&program)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filter is for the thread that enters it, so the test runs in one of its own.
    #[test]
    fn refused_calls_fail_and_others_do_not() {
        let thread = std::thread::spawn(|| {
            refuse(true).unwrap();
            let error = nix::unistd::chroot("/").unwrap_err();
            assert_eq!(error, nix::errno::Errno::EPERM);
            #[expect(clippy::disallowed_methods, reason = "tries to start a program")]
            let started = std::process::Command::new("/bin/true").status();
            assert_eq!(started.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = thread.join().unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }

    #[test]
    fn a_process_without_network_opens_no_connection() {
        let connect = |has_network: bool| {
            let thread = std::thread::spawn(move || {
                refuse(has_network).unwrap();
                let pair = std::os::unix::net::UnixStream::pair();
                let listener = std::net::TcpListener::bind("127.0.0.1:0");
                (pair.is_ok(), listener.map_err(|error| error.kind()).map(drop))
            });
            thread.join().unwrap()
        };
        assert_eq!(connect(true), (true, Ok(())));
        assert_eq!(connect(false), (true, Err(std::io::ErrorKind::PermissionDenied)));
    }
}
