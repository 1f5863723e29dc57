//! Signals of the child processes.

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};

/// Unblocks all signals: the supervisor blocks those it waits for, and children inherit the mask.
pub(crate) fn unblock() -> nix::Result<()> {
    SigSet::all().thread_unblock()
}

/// The same without SIGHUP, which would end the server before it can handle it: it stays pending until
/// [`shutdown_requested`] is called.
pub(crate) fn unblock_except_hangup() -> nix::Result<()> {
    let mut signals = SigSet::all();
    signals.remove(Signal::SIGHUP);
    signals.thread_unblock()
}

/// Makes SIGHUP do nothing: it means new certificates, which concern the server only, and a program that announces
/// them may signal every process of a service. Programs that this process starts get the default action.
pub(crate) fn ignore_hangup() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    // The handler stays when the receiver is dropped.
    signal(SignalKind::hangup()).map(drop)
}

/// Makes the kernel kill this process when its parent, the supervisor, exits.
pub(crate) fn kill_with_parent() -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// Completes on SIGTERM or SIGINT, from the call on, even if it is awaited later. The calling thread receives SIGHUP
/// from now on, which the server handles by then.
pub(crate) fn shutdown_requested() -> impl Future<Output = ()> + Send + 'static {
    if let Err(error) = unblock() {
        tracing::error!(%error, "SIGHUP stays blocked; certificates are still read again when their files change");
    }
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
