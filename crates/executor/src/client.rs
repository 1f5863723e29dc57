//! How the server talks to the executor: one JSON line there, one back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use wardroom_domain::executor::{Request, Response};

/// Where the socket of a data folder is.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("executor.sock")
}

/// The executor, as seen from the server.
#[derive(Clone, Debug)]
pub struct ExecutorClient {
    socket: Option<PathBuf>,
}

/// The executor did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("executor does not answer: {0}")]
pub struct Unreachable(pub String);

impl ExecutorClient {
    /// A client for the executor of a data folder; `None` if none is configured.
    pub const fn new(socket: Option<PathBuf>) -> Self {
        Self { socket }
    }

    /// Whether one is configured.
    pub const fn configured(&self) -> bool {
        self.socket.is_some()
    }

    /// Asks.
    ///
    /// # Errors
    /// It is not configured, not there, or did not answer in time.
    pub async fn ask(&self, request: &Request) -> Result<Response, Unreachable> {
        let Some(socket) = &self.socket else {
            return Err(Unreachable("none is configured; start with --executor-config".into()));
        };
        let exchange = async {
            let mut stream = UnixStream::connect(socket).await?;
            let mut line = serde_json::to_string(request)?;
            line.push('\n');
            stream.write_all(line.as_bytes()).await?;
            let mut answer = String::new();
            BufReader::new(stream.take(1 << 20)).read_line(&mut answer).await?;
            std::io::Result::Ok(serde_json::from_str(&answer)?)
        };
        match tokio::time::timeout(Duration::from_secs(60), exchange).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Unreachable(error.to_string())),
            Err(_) => Err(Unreachable("no answer within 60 s".into())),
        }
    }
}
