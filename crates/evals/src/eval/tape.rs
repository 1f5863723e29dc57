//! `eval tape FOLDER…`: recorded requests through detection and diagnosis, in this process and as fast as possible.
//!
//! A tape is a file `tape.zst`, or `tape`, with one JSON line of a header (`t0`: unix time of its start), then for each
//! request a JSON line (`t`: seconds since the start, `path`, `ct`, `enc`, `len`), `len` bytes of the body and a line
//! feed; beside it `truth.json` says what was injected, and when. A folder of tapes stands for all of them.

use std::io::{BufRead as _, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use wardroom_domain::{Envelope, Principal, TenantId, Timestamp};
use wardroom_sources::SOURCES;

use super::detection_run::{DetectionRun, FoundIncident};
use super::score::{Score, Truth, score};

/// Largest window of a compressed tape, as a power of two.
const WINDOW_LOG: u32 = 27;
/// Largest decompressed body, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;
/// Path of bodies that are compressed with snappy on the wire, but may be plain in a tape.
const REMOTE_WRITE_PATH: &str = "/api/v1/write";

#[derive(Deserialize)]
struct Header {
    t0: f64,
}

#[derive(Deserialize)]
struct RecordHeader {
    t: f64,
    path: String,
    #[serde(default)]
    ct: String,
    #[serde(default)]
    enc: String,
    len: usize,
}

#[derive(Deserialize)]
struct TruthFile {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    healthy: bool,
    #[serde(default)]
    injected_at: Option<f64>,
    #[serde(default)]
    root_cause_names: Vec<String>,
}

/// Returns the folders of tapes in or below a folder, in order.
pub(super) fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.join("truth.json").exists() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let folder = entry?.path();
        if folder.join("truth.json").exists() {
            found.push(folder);
        }
    }
    anyhow::ensure!(!found.is_empty(), "no tape in {}: a tape is a folder with truth.json", path.display());
    found.sort();
    Ok(found)
}

/// Plays one tape and scores it.
pub(super) fn play(folder: &Path) -> anyhow::Result<Score> {
    let (truth, incidents) = incidents(folder)?;
    Ok(score(&truth, &incidents))
}

/// Plays one tape; returns what is known of it, and the incidents.
pub(super) fn incidents(folder: &Path) -> anyhow::Result<(Truth, Vec<FoundIncident>)> {
    let truth = std::fs::read(folder.join("truth.json"))?;
    let truth: TruthFile =
        serde_json::from_slice(&truth).with_context(|| format!("{}/truth.json", folder.display()))?;
    let mut tape = std::io::BufReader::new(open(folder)?);
    let mut line = String::new();
    tape.read_line(&mut line)?;
    let header: Header = serde_json::from_str(&line).context("the first line of the tape")?;
    let mut run = DetectionRun::new()?;
    loop {
        line.clear();
        if tape.read_line(&mut line)? == 0 {
            break;
        }
        let record: RecordHeader = serde_json::from_str(&line).context("the line before a request")?;
        let mut body = vec![0; record.len + 1];
        tape.read_exact(&mut body)?;
        body.truncate(record.len);
        let at_ms = ((header.t0 + record.t) * 1000.0) as i64;
        if let Some((envelope, body)) = request(record, body, at_ms)? {
            run.request(&envelope, &body)?;
        }
    }
    let truth = Truth {
        name: truth.name,
        kind: truth.kind,
        healthy: truth.healthy,
        injected_ms: ((header.t0 + truth.injected_at.unwrap_or_default()) * 1000.0) as i64,
        names: truth.root_cause_names,
    };
    Ok((truth, run.finish()))
}

fn open(folder: &Path) -> anyhow::Result<Box<dyn Read>> {
    let (compressed, plain) = (folder.join("tape.zst"), folder.join("tape"));
    if !compressed.exists() {
        return Ok(Box::new(std::fs::File::open(&plain).with_context(|| format!("opening {}", plain.display()))?));
    }
    let mut decoder = zstd::Decoder::new(std::fs::File::open(&compressed)?)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

/// Returns the request as a receiver would have stored it; `None` for paths that this build does not receive.
fn request(record: RecordHeader, body: Vec<u8>, at_ms: i64) -> anyhow::Result<Option<(Envelope, Vec<u8>)>> {
    let Some(source) = SOURCES.iter().find(|source| source.path() == record.path) else { return Ok(None) };
    // Tapes keep such bodies as sent or plain, whatever their header says.
    let is_plain = record.path == REMOTE_WRITE_PATH && !is_snappy(&body);
    let (body, encoding) = if is_plain {
        (snap::raw::Encoder::new().compress_vec(&body)?, "snappy".to_owned())
    } else {
        (body, record.enc)
    };
    let envelope = Envelope {
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        protocol: source.name().to_owned(),
        content_type: record.ct,
        content_encoding: encoding,
        received_at: Timestamp::from_millis(at_ms),
        refused: Vec::new(),
        has_events: true,
    };
    Ok(Some((envelope, body)))
}

/// Returns whether a body is complete snappy within the limit.
fn is_snappy(body: &[u8]) -> bool {
    let size = snap::raw::decompress_len(body).ok().filter(|size| *size <= MAX_BODY_BYTES);
    size.is_some_and(|size| snap::raw::Decoder::new().decompress(body, &mut vec![0; size]).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_compressed_bodies_are_told_apart() {
        // A write request with one series begins like snappy of ten bytes.
        let plain = b"\x0a\x05\x0a\x03\x0a\x01a";
        assert!(!is_snappy(plain) && is_snappy(&snap::raw::Encoder::new().compress_vec(plain).unwrap()));
    }
}
