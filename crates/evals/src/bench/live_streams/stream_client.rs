//! Clients of live events, each with a connection and a thread of its own, as browsers have them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use wardroom_testing::Server;

/// The prefix of the versions of deployments whose events are counted; a number follows.
pub(super) const VERSION_PREFIX: &str = "live-";
/// Longest wait for the first line of a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a client notices that it may end.
const STOP_INTERVAL: Duration = Duration::from_millis(250);
const STACK_BYTES: usize = 256 * 1024;

/// What a client received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// When the event of each deployment arrived first, by its number.
    pub(super) deployments: BTreeMap<u64, Instant>,
    /// Events of deployments that had arrived before.
    pub(super) repeated: u64,
    /// Revision of the incident in the newest event about it.
    pub(super) revision: i64,
    /// How often the server had left events out.
    pub(super) resets: u64,
    /// Whether the server ended the stream.
    pub(super) is_lost: bool,
}

/// Open streams.
pub(super) struct StreamClients {
    threads: Vec<JoinHandle<Received>>,
    stop: Arc<AtomicBool>,
}

impl StreamClients {
    /// Opens `count` streams, with the tokens in turn.
    pub(super) fn open(server: &Server, tokens: &[String], count: usize) -> anyhow::Result<Self> {
        let address = server.url.strip_prefix("http://").context("the URL is not http")?;
        let mut clients = Self { threads: Vec::new(), stop: Arc::default() };
        for token in tokens.iter().cycle().take(count) {
            let mut connection = TcpStream::connect(address)?;
            connection.set_read_timeout(Some(OPEN_TIMEOUT))?;
            write!(
                connection,
                "GET /api/v1/stream HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
            )?;
            let mut lines = BufReader::new(connection);
            let mut head = String::new();
            while !head.contains("retry: ") {
                if lines.read_line(&mut head)? == 0 || !head.starts_with("HTTP/1.1 200") {
                    bail!("a stream was refused: {head}");
                }
            }
            lines.get_ref().set_read_timeout(Some(STOP_INTERVAL))?;
            let stop = Arc::clone(&clients.stop);
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            clients.threads.push(thread.spawn(move || receive(lines, &stop))?);
        }
        Ok(clients)
    }

    /// Ends all streams, and returns what each client received.
    pub(super) fn close(self) -> anyhow::Result<Vec<Received>> {
        self.stop.store(true, Ordering::Release);
        let joined = self.threads.into_iter().map(JoinHandle::join);
        joined.map(|received| received.map_err(|_| anyhow::anyhow!("a client panicked"))).collect()
    }
}

/// Reads events until it has to stop.
fn receive(mut lines: impl BufRead, stop: &AtomicBool) -> Received {
    let (mut received, mut line, mut event) = (Received::default(), Vec::new(), String::new());
    while !stop.load(Ordering::Acquire) {
        match lines.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                // The last part of the body has no bytes.
                if text == "0" {
                    received.is_lost = true;
                    return received;
                }
                if let Some(name) = text.strip_prefix("event: ") {
                    name.clone_into(&mut event);
                } else if let Some(data) = text.strip_prefix("data: ") {
                    received.take(&event, data);
                }
            }
            // What was read of a line stays in the buffer.
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Ok(_) | Err(_) => {
                received.is_lost = true;
                return received;
            }
        }
    }
    received
}

impl Received {
    fn take(&mut self, event: &str, data: &str) {
        match event {
            "reset" => self.resets += 1,
            "incident" => {
                let data: Value = serde_json::from_str(data).unwrap_or_default();
                self.revision = self.revision.max(data["revision"].as_i64().unwrap_or_default());
            }
            "change" => {
                let data: Value = serde_json::from_str(data).unwrap_or_default();
                let version = data["attributes"]["version"].as_str().unwrap_or_default();
                let Some(number) = version.strip_prefix(VERSION_PREFIX).and_then(|number| number.parse().ok()) else {
                    return;
                };
                match self.deployments.entry(number) {
                    Entry::Vacant(place) => {
                        place.insert(Instant::now());
                    }
                    Entry::Occupied(_) => self.repeated += 1,
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_the_parts_of_a_body() {
        let text = "21\r\nevent: change\ndata: {\"attributes\":{\"version\":\"live-7\"}}\n\n\r\n\
                    21\r\nevent: change\ndata: {\"attributes\":{\"version\":\"live-7\"}}\n\n\r\n\
                    21\r\nevent: change\ndata: {\"attributes\":{\"version\":\"v3\"}}\n\n\r\n\
                    11\r\nid: 1\nevent: incident\ndata: {\"revision\":4}\n\n\r\n\
                    11\r\nevent: reset\ndata: {}\n\n\r\n0\r\n\r\n";
        let received = receive(text.as_bytes(), &AtomicBool::new(false));
        assert_eq!(received.deployments.keys().collect::<Vec<_>>(), [&7]);
        assert_eq!((received.repeated, received.revision, received.resets, received.is_lost), (1, 4, 1, true));
    }
}
