//! Code shared by the fuzz targets.

use std::path::Path;

use anyhow::{Context, ensure};
use wardroom_domain::{Envelope, Principal, TenantId, Timestamp};
use wardroom_edge::InflateBudget;

/// Time at which all inputs are received, in ms since the epoch.
pub(super) const NOW_MS: i64 = 1_795_255_200_000;

/// Passes bytes to a parser.
type Parse = Box<dyn Fn(&[u8]) + Send>;

/// A parser with its corpus.
pub(super) struct FuzzTarget {
    pub(super) name: &'static str,
    /// Valid inputs.
    pub(super) seeds: Vec<Vec<u8>>,
    pub(super) parse: Parse,
}

/// Drops a result, and keeps the compiler from removing what produced it.
pub(super) fn discard<T>(result: T) {
    drop(std::hint::black_box(result));
}

pub(super) fn inflate_budget() -> InflateBudget {
    InflateBudget::new(64 << 20, 32 << 20)
}

pub(super) fn envelope(protocol: &str, content_type: &str, encoding: &str) -> Envelope {
    Envelope {
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        protocol: protocol.into(),
        content_type: content_type.into(),
        content_encoding: encoding.into(),
        received_at: Timestamp::from_millis(NOW_MS),
        refused: Vec::new(),
        has_events: true,
    }
}

/// Reads all files of a folder whose name `is_selected` accepts.
pub(super) fn read_files(dir: &Path, is_selected: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(&is_selected) {
            found.push(std::fs::read(path)?);
        }
    }
    ensure!(!found.is_empty() || dir.ends_with("otlp"), "no seeds in {}", dir.display());
    Ok(found)
}
