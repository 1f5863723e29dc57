//! Signals of the child processes.

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};

/// Unblocks all signals: the supervisor blocks those it waits for, and children inherit the mask.
pub(crate) fn unblock() -> nix::Result<()> {
    SigSet::all().thread_unblock()
}

/// Makes the kernel kill this process when its parent, the supervisor, exits.
pub(crate) fn kill_with_parent() -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// Completes on SIGTERM or SIGINT, from the call on, even if it is awaited later.
pub(crate) fn shutdown_requested() -> impl Future<Output = ()> + Send + 'static {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::error!("cannot install signal handlers; only SIGKILL stops this process");
            return std::future::pending().await;
        };
        // A Ctrl-C in a terminal reaches this process too; the supervisor's SIGTERM follows.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
