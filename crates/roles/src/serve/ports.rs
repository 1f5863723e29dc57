//! The listening ports, on a thread of their own.
//!
//! Problem: an acknowledgement should not wait for a role that has much to do, and waking a thread costs as much as hundreds of samples:
//! where several threads could go on with a request, the runtime wakes two for whatever the bus or detection tells it. Model: one thread
//! serves all connections, in a runtime that has nothing else to do; what takes long goes from there to threads that may block (large bodies
//! in intake, questions in the views, SQL in its own). Guarantee: once the returned thread has ended, nothing of a request is
//! at work any more.

use std::future::Future;
use std::io::{Error, Result};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wardroom_edge::{Port, Routes};

/// Serves until `stop` resolves and what is running then is answered, or until the returned future is dropped. The thread ends
/// soon after.
pub(super) fn serve(
    port: Port,
    listeners: Vec<TcpListener>,
    routes: Routes,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(impl Future<Output = Result<()>>, JoinHandle<()>)> {
    // They wake the runtime in which they were made.
    let listeners = listeners.into_iter().map(TcpListener::into_std).collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().thread_name("request").enable_all().build()?;
    let (mut done, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("ports".into()).spawn(move || {
        let served = runtime.block_on(async {
            let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<Result<_>>()?;
            tokio::select! {
                served = port.serve(listeners, routes, stop) => served,
                () = done.closed() => Ok(()),
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        // Nobody waits for it any more if it was told to end.
        let _gone = done.send(served);
    })?;
    let served = async { ended.await.unwrap_or_else(|_| Err(Error::other("the thread of the ports panicked"))) };
    Ok((served, thread))
}
