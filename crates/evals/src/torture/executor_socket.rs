//! Requests to an executor on its socket, past the server.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use serde_json::Value;
use wardroom_domain::executor::Response;
use wardroom_testing::Server;

/// Sends a request and returns the answer.
pub(super) fn ask_executor(server: &Server, request: &Value) -> anyhow::Result<Response> {
    let mut stream = UnixStream::connect(server.dir.join("data/executor.sock")).context("the executor's socket")?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("the executor's answer {line:?}"))
}
