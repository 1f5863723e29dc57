//! Accepts connections and serves each within limits of number and time.
//!
//! ```text
//! accept ─► place in the table ─► TLS ─► HTTP/1 or HTTP/2 ─► requests ─► closed: by client, idle, slow head, evicted
//!              │ none: closed
//! ```

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Version, header};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tower::Service;

use crate::callers::ClientAddress;
use crate::config::Config;
use crate::connections::{ConnectionPermit, ConnectionState, ConnectionTable};
use crate::forwarded::Forwarding;
use crate::listeners::Listener;
use crate::metrics as names;
use crate::tls::ListenerTls;
use crate::transport::{TrackedStream, Transport};

/// Pause after a failed `accept`, usually for lack of descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of HTTP/2 pings, which detect clients that are gone while a request is running.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum buffer of an HTTP/1 connection, in bytes; also the limit of a request's head.
const MAX_BUFFER_BYTES: usize = 128 << 10;
/// Maximum number of bytes of a body that no handler reads and that are discarded.
const MAX_DISCARD_BYTES: usize = 64 << 10;
/// How long the rest of such a body is waited for.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves every connection of a listener until `stopped`, then waits for the requests in flight.
pub(crate) async fn serve_listener(
    listener: Listener,
    router: Router,
    config: Config,
    table: ConnectionTable,
    mut stopped: watch::Receiver<bool>,
) {
    let builder = connection_builder();
    let forwarding = Arc::new(Forwarding::new(&config.base_path, &config.trusted_proxies));
    let timeouts = Timeouts {
        header: Duration::from_secs(config.header_timeout_seconds.max(1)),
        idle: Duration::from_secs(config.idle_timeout_seconds.max(1)),
    };
    // Every connection holds a sender, so the channel closes with the last of them.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed; retrying");
                table.evict_one();
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            }
        };
        let Some(permit) = table.admit(address.ip()) else {
            tracing::debug!(%address, "connection refused at the limit");
            continue;
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        let forwarding = Arc::clone(&forwarding);
        let connection = Connection { permit, timeouts, router, stopped, address: address.ip(), forwarding };
        let (builder, open, tls) = (builder.clone(), open.clone(), listener.tls.clone());
        tokio::spawn(async move {
            let transport = match tls {
                None => Some(Transport::Plain(stream)),
                // Boxed: without TLS a connection does not need the memory of a handshake.
                Some(tls) => Box::pin(connection.encrypt(stream, &tls)).await,
            };
            if let Some(transport) = transport {
                connection.serve(transport, builder).await;
            }
            drop(open);
        });
    }
    drop((listener, open));
    let _none = all_closed.recv().await;
}

fn connection_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The timeout of this library would run between requests, too; `ConnectionState` tells the two apart.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_BUFFER_BYTES);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
    builder
}

#[derive(Clone, Copy, Debug)]
struct Timeouts {
    header: Duration,
    idle: Duration,
}

impl Timeouts {
    /// Interval at which a connection is checked.
    fn check_interval(self) -> Duration {
        self.header.min(self.idle) / 2
    }
}

/// One accepted connection.
struct Connection {
    permit: ConnectionPermit,
    timeouts: Timeouts,
    router: Router,
    stopped: watch::Receiver<bool>,
    address: IpAddr,
    forwarding: Arc<Forwarding>,
}

impl Connection {
    /// Makes the TLS handshake, in the time of a request's head. Returns `None` if it fails, and if the connection is
    /// closed for another one or because the server stops.
    async fn encrypt(&self, stream: TcpStream, tls: &ListenerTls) -> Option<Transport> {
        let (state, mut stopped) = (self.permit.state(), self.stopped.clone());
        let handshake = Transport::encrypted(stream, tls.acceptor());
        let made = tokio::select! {
            made = tokio::time::timeout(self.timeouts.header, handshake) => made,
            () = state.evicted() => return None,
            _ = stopped.wait_for(|stopped| *stopped) => return None,
        };
        let failed = |reason: &dyn std::fmt::Display| {
            tls.handshake_failed();
            tracing::debug!(%reason, address = %self.address, "TLS handshake failed");
        };
        match made {
            Ok(Ok(transport)) => return Some(transport),
            Ok(Err(error)) => failed(&error),
            Err(_) => failed(&"it took longer than edge.header-timeout-seconds"),
        }
        None
    }

    async fn serve(self, transport: Transport, builder: Builder<TokioExecutor>) {
        let Self { permit, timeouts, router, mut stopped, address, forwarding } = self;
        let state = permit.state();
        let is_encrypted = transport.is_encrypted();
        let stream = TokioIo::new(TrackedStream::new(transport, Arc::clone(&state)));
        let service_state = Arc::clone(&state);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let address = forwarding.apply(&mut request, address, is_encrypted);
            handle(router.clone(), Arc::clone(&service_state), address, request)
        });
        let mut connection = pin!(builder.serve_connection(stream, service));
        let mut check = tokio::time::interval(timeouts.check_interval());
        let (mut draining, mut closing) = (false, false);
        loop {
            tokio::select! {
                served = connection.as_mut() => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "connection ended");
                    }
                    break;
                }
                () = state.evicted() => break,
                _ = stopped.wait_for(|stopped| *stopped), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = check.tick() => {
                    let Some(reason) = state.expired(timeouts.header, timeouts.idle) else { continue };
                    // An idle client is notified first; it may be sending a request just now.
                    let close_now = closing || reason != "idle";
                    if !closing {
                        metrics::counter!(names::CONNECTIONS_CLOSED_TOTAL, "reason" => reason).increment(1);
                    }
                    if close_now {
                        break;
                    }
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        drop(permit);
    }
}

/// Handles one request and records its begin and end.
async fn handle(
    mut router: Router,
    state: Arc<ConnectionState>,
    address: IpAddr,
    mut request: hyper::Request<Incoming>,
) -> Result<axum::response::Response, std::convert::Infallible> {
    let is_http2 = request.version() == Version::HTTP_2;
    state.request_began(is_http2);
    request.extensions_mut().insert(ClientAddress(address));
    let _running = RunningRequest(Arc::clone(&state));
    let reads_rest = !is_http2 && !request.headers().contains_key(header::EXPECT);
    let request: Request = request.map(|body| Body::new(TrackedBody::new(body, state, reads_rest)));
    router.call(request).await
}

struct RunningRequest(Arc<ConnectionState>);

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// A request body that records when it is complete. What a handler leaves of it is read and discarded, so that a client
/// that is still sending gets the response instead of a reset, and can use the connection again.
struct TrackedBody {
    /// `None` once it was dropped.
    body: Option<Incoming>,
    /// `None` once the body is complete.
    state: Option<Arc<ConnectionState>>,
    /// Whether the rest is read. Not of a client that waits for permission to send it, nor of HTTP/2, which cancels one
    /// request without the others.
    reads_rest: bool,
}

impl TrackedBody {
    fn new(body: Incoming, state: Arc<ConnectionState>, reads_rest: bool) -> Self {
        let state = (!body.is_end_stream()).then_some(state);
        if let Some(state) = &state {
            state.body_began();
        }
        Self { body: Some(body), state, reads_rest }
    }

    fn end(&mut self) {
        if let Some(state) = self.state.take() {
            state.body_ended();
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || body.is_end_stream() {
            self.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let (Some(body), Some(state)) = (self.body.take(), self.state.take()) else { return };
        // Fails while the runtime shuts down.
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| self.reads_rest);
        let Some(runtime) = runtime else { return state.body_ended() };
        runtime.spawn(async move {
            let _timed_out = tokio::time::timeout(DISCARD_TIMEOUT, discard(body)).await;
            state.body_ended();
        });
    }
}

/// Reads the rest of a body up to a limit.
async fn discard(mut body: Incoming) {
    let mut bytes = 0;
    while bytes < MAX_DISCARD_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
