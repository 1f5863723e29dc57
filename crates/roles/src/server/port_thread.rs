//! Serves all connections on a separate thread.
//!
//! Problem: an acknowledgement must not wait for a busy role, and waking a thread costs as much as processing hundreds
//! of samples: on a multi-threaded runtime two threads are woken for each completion by the bus or detection. Model:
//! one thread serves all connections in a current-thread runtime; slow work goes to blocking threads (large bodies in
//! intake, queries in the API backend, SQL on its own threads). Guarantee: once the returned thread has ended, no
//! request is in progress.

use std::future::Future;
use std::io::{Error, Result};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use wardroom_edge::{Listener, Port, Routes};

/// Maximum wait for tasks of the runtime at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until `stop` resolves and running requests are finished, or until the returned future is dropped. The thread
/// ends soon after.
///
/// # Errors
/// Returns an error if the runtime or the thread cannot be created.
pub(super) fn spawn_port_thread(
    port: Port,
    listeners: Vec<Listener>,
    routes: Routes,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(impl Future<Output = Result<()>>, JoinHandle<()>)> {
    // A listener is bound to the runtime in which it was created, so they are created again in the new one.
    let listeners = listeners.into_iter().map(Listener::into_std).collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().thread_name("request").enable_all().build()?;
    let (mut done, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("ports".into()).spawn(move || {
        let result = runtime.block_on(async {
            let listeners = listeners.into_iter().map(Listener::from_std).collect::<Result<_>>()?;
            tokio::select! {
                result = port.serve(listeners, routes, stop) => result,
                () = done.closed() => Ok(()),
            }
        });
        runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        // The receiver is dropped if serving was cancelled.
        let _cancelled = done.send(result);
    })?;
    let finished = async { ended.await.unwrap_or_else(|_| Err(Error::other("the port thread panicked"))) };
    Ok((finished, thread))
}
