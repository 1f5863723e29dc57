//! The server's client for the executor: sends one JSON line and receives one.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use wardroom_domain::executor::{Request, Response};

use crate::protocol::MAX_MESSAGE_BYTES;

/// Maximum time for a request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

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

    /// Sends a request and returns the response.
    ///
    /// # Errors
    /// Returns an error if no executor is configured, or if it is not running or does not respond in time.
    pub async fn request(&self, request: &Request) -> Result<Response, ExecutorUnavailable> {
        let Some(socket) = &self.socket else {
            return Err(ExecutorUnavailable("no executor is configured; start with --executor-config".into()));
        };
        let exchange = async {
            let mut stream = UnixStream::connect(socket).await?;
            let mut line = serde_json::to_string(request)?;
            line.push('\n');
            stream.write_all(line.as_bytes()).await?;
            let mut response = String::new();
            BufReader::new(stream.take(MAX_MESSAGE_BYTES)).read_line(&mut response).await?;
            std::io::Result::Ok(serde_json::from_str(&response)?)
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(ExecutorUnavailable(error.to_string())),
            Err(_) => Err(ExecutorUnavailable(format!("no response within {} s", REQUEST_TIMEOUT.as_secs()))),
        }
    }
}
