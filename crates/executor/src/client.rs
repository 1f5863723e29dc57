//! The server's client for the executor: sends one JSON line and receives one.

use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tracing::Instrument;
use wardroom_domain::executor::{Request, Response};
use wardroom_process::clock;
use wardroom_traces::TraceContext;

use crate::protocol::{MAX_MESSAGE_BYTES, SentRequest};

/// Maximum time for a request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum time for a request that only asks, to find out whether the executor works.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// The part of the maximum time in which the executor must begin, in percent; the rest is for what it does.
const BEGIN_PERCENT: u32 = 80;

/// A client of the executor.
#[derive(Clone, Debug)]
pub struct ExecutorClient {
    socket: Option<PathBuf>,
}

/// The executor did not respond.
#[derive(Clone, Debug, thiserror::Error)]
#[error("executor unavailable: {0}")]
pub struct ExecutorUnavailable(pub String);

impl ExecutorClient {
    /// Creates a client for a socket; `None` if no executor is configured.
    pub const fn new(socket: Option<PathBuf>) -> Self {
        Self { socket }
    }

    /// Returns whether an executor is configured.
    pub const fn configured(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends a request and returns the response. The executor no longer begins with it when nothing waits for that.
    ///
    /// # Errors
    /// Returns an error if no executor is configured, or if it is not running or does not respond in time. It says
    /// whether the request may have been carried out.
    pub async fn request(&self, request: &Request) -> Result<Response, ExecutorUnavailable> {
        self.exchange(request, REQUEST_TIMEOUT).await
    }

    /// Sends a request that only asks, and waits for seconds only: an executor that works responds at once.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn check(&self, request: &Request) -> Result<Response, ExecutorUnavailable> {
        self.exchange(request, CHECK_TIMEOUT).await
    }

    /// Sends a request, in a span of its own if it has an effect or belongs to a caller's trace.
    async fn exchange(&self, request: &Request, timeout: Duration) -> Result<Response, ExecutorUnavailable> {
        let is_traced = changes_something(request) || wardroom_traces::current().is_some();
        let span = match is_traced {
            true => tracing::info_span!("executor", operation = operation_of(request)),
            false => tracing::Span::none(),
        };
        self.send(request, timeout).instrument(span).await
    }

    async fn send(&self, request: &Request, timeout: Duration) -> Result<Response, ExecutorUnavailable> {
        let Some(socket) = &self.socket else {
            return Err(ExecutorUnavailable("no executor is configured; start with --executor-config".into()));
        };
        let deadline = clock::now().plus(timeout * BEGIN_PERCENT / 100);
        let mut is_sent = false;
        let exchange = async {
            let traceparent = wardroom_traces::current().map(TraceContext::header);
            let mut line = serde_json::to_string(&SentRequest { deadline, traceparent, request })?;
            line.push('\n');
            let mut stream = UnixStream::connect(socket).await?;
            is_sent = true;
            stream.write_all(line.as_bytes()).await?;
            let mut response = String::new();
            BufReader::new(stream.take(MAX_MESSAGE_BYTES)).read_line(&mut response).await?;
            if response.is_empty() {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the connection was closed without a response"));
            }
            Ok(serde_json::from_str(&response)?)
        };
        let (reason, is_over) = match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => (error.to_string(), false),
            Err(_) => (format!("no response within {} s", timeout.as_secs()), true),
        };
        let outcome = if is_sent && changes_something(request) { unknown_outcome(is_over) } else { "" };
        Err(ExecutorUnavailable(format!("{reason}{outcome}")))
    }
}

/// Whether a request has an effect.
const fn changes_something(request: &Request) -> bool {
    match request {
        Request::Authorize { .. }
        | Request::Start { .. }
        | Request::StartUndo { .. }
        | Request::Execute { .. }
        | Request::Undo { .. }
        | Request::Settle { .. }
        | Request::Review { .. }
        | Request::StopAll { .. }
        | Request::Resume { .. }
        | Request::SignAudit { .. } => true,
        Request::Ping
        | Request::Approvers
        | Request::DryRun { .. }
        | Request::Read { .. }
        | Request::Status { .. }
        | Request::StopState
        | Request::AuditHead => false,
    }
}

/// Name of a request in spans, as on the wire.
pub(crate) const fn operation_of(request: &Request) -> &'static str {
    match request {
        Request::Ping => "ping",
        Request::Approvers => "approvers",
        Request::DryRun { .. } => "dry_run",
        Request::Read { .. } => "read",
        Request::Authorize { .. } => "authorize",
        Request::Start { .. } => "start",
        Request::StartUndo { .. } => "start_undo",
        Request::Execute { .. } => "execute",
        Request::Undo { .. } => "undo",
        Request::Settle { .. } => "settle",
        Request::Status { .. } => "status",
        Request::StopAll { .. } => "stop_all",
        Request::Resume { .. } => "resume",
        Request::StopState => "stop_state",
        Request::Review { .. } => "review",
        Request::AuditHead => "audit_head",
        Request::SignAudit { .. } => "sign_audit",
    }
}

/// Says what is known of a request that was sent and not answered.
const fn unknown_outcome(is_over: bool) -> &'static str {
    if is_over {
        "; if the executor had not begun with the request, it will not, since its deadline has passed; otherwise the \
         outcome is unknown: read the incident before you repeat it"
    } else {
        "; the request was sent and its outcome is unknown: read the incident before you repeat it"
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::protocol::ReceivedRequest;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_says_whether_the_request_may_have_been_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("executor.sock");
        let client = ExecutorClient::new(Some(socket.clone()));
        let execute = Request::Execute { plan_sha256: "a".to_owned(), step: 0 };
        let error = client.request(&execute).await.unwrap_err().to_string();
        assert!(!error.contains("unknown"), "nothing was sent: {error}");
        let listener = UnixListener::bind(&socket).unwrap();
        // Like an executor that is stopped: connections are accepted by the kernel, and not answered.
        let error = |request, timeout| {
            let client = &client;
            async move { client.exchange(request, timeout).await.unwrap_err().to_string() }
        };
        let second = Duration::from_secs(1);
        let late = error(&execute, second).await;
        assert!(late.contains("no response within 1 s; if the executor had not begun") && late.contains("unknown"));
        let ping = error(&Request::Ping, second).await;
        assert!(ping.ends_with("no response within 1 s"), "{ping}");
        let reader = std::thread::spawn(move || {
            let read = |stream: std::os::unix::net::UnixStream| {
                let mut line = String::new();
                std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
                let received: ReceivedRequest = serde_json::from_str(&line).unwrap();
                (received.deadline.0.unwrap() <= clock::now(), stream)
            };
            let late: Vec<bool> = listener.incoming().take(2).map(|stream| read(stream.unwrap()).0).collect();
            let (is_late, mut stream) = read(listener.accept().unwrap().0);
            writeln!(stream, r#"{{"answer":"status","status":{{"detail":""}}}}"#).unwrap();
            drop(read(listener.accept().unwrap().0));
            (late, is_late)
        });
        assert!(matches!(client.request(&execute).await, Ok(Response::Status { .. })));
        let closed = error(&execute, REQUEST_TIMEOUT).await;
        assert!(
            closed.contains("closed without a response; the request was sent and its outcome is unknown"),
            "{closed}"
        );
        assert_eq!(reader.join().unwrap(), (vec![true, true], false), "what is read late is past its deadline");
    }
}
