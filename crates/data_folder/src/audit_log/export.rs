//! Export of the audit log with its signed heads to one file, and verification of such a file without the data folder.
//!
//! ```text
//! {"format":"wardroom audit export 1","exported_at":"…","public_key":"…"}
//! {"sequence":1,"text":"{…}","hash":"…"}          one line an entry, the text exactly as hashed
//! {"head":{…}}                                    one line a signed head, from the executor's ledger
//! {"entries":57,"heads":12}                       the end, a file that was cut differs from a log that was
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use wardroom_domain::Timestamp;
use wardroom_domain::audit_head::{FaultCode, LogVerification, LogVerifier, SignedHead, SigningEvidence};
use wardroom_executor::{audit_evidence, is_signature_valid};
use wardroom_process::clock;

use super::{AuditLogError, read_given_key, read_published_heads};
use crate::state_database::{RequiredState, open_state};

/// First field of an export.
const FORMAT: &str = "wardroom audit export 1";

/// A line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Start { format: String, exported_at: Timestamp, public_key: Option<String> },
    Entry { sequence: i64, text: String, hash: String },
    Head { head: Box<SignedHead> },
    End { entries: i64, heads: usize },
}

/// Writes the audit log of a data folder to a new file; a server may be running. Returns the number of entries.
///
/// # Errors
/// Returns an error if database or ledger cannot be read, or the file exists or cannot be written.
pub async fn export_audit_log(data: &Path, file: &Path) -> Result<i64, AuditLogError> {
    // The ledger first: entries that are written meanwhile are then not signed yet, and none is missing.
    let evidence = audit_evidence(data)?;
    let store = open_state(data, RequiredState::Entries).await?;
    let failed = |error: std::io::Error| AuditLogError::Export { path: file.to_owned(), error: error.to_string() };
    let mut out = BufWriter::new(File::create_new(file).map_err(failed)?);
    let mut write = |line: &Line| -> std::io::Result<()> {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")
    };
    let public_key = evidence.public_key.map(|(key, _)| key);
    write(&Line::Start { format: FORMAT.to_owned(), exported_at: clock::now(), public_key }).map_err(failed)?;
    let (mut entries, mut written) = (0, Ok(()));
    let mut on_row = |sequence: i64, text: &str, hash: &str| {
        written = write(&Line::Entry { sequence, text: text.to_owned(), hash: hash.to_owned() });
        entries += 1;
        written.is_ok()
    };
    store.read_audit(&mut on_row).await?;
    store.close().await;
    written.map_err(failed)?;
    let heads = evidence.heads.len();
    for head in evidence.heads {
        write(&Line::Head { head: Box::new(head) }).map_err(failed)?;
    }
    write(&Line::End { entries, heads }).map_err(failed)?;
    out.flush().map_err(failed)?;
    out.get_ref().sync_all().map_err(failed)?;
    Ok(entries)
}

/// Verifies an export. Faults are reported in the result.
///
/// # Errors
/// Returns an error if a file cannot be read, or is no export.
pub fn verify_audit_export(
    file: &Path,
    public_key: Option<&Path>,
    published: Option<&Path>,
) -> Result<LogVerification, AuditLogError> {
    let given = public_key.map(read_given_key).transpose()?;
    let published = published.map_or_else(|| Ok(Vec::new()), read_published_heads)?;
    let failed = |line: usize, reason: &str| AuditLogError::Export {
        path: file.to_owned(),
        error: format!("line {line}: {reason}"),
    };
    let mut lines = Vec::new();
    for (index, line) in BufReader::new(File::open(file)?).lines().enumerate() {
        lines.push(match serde_json::from_str(&line?) {
            Ok(line) => line,
            Err(_) if index == 0 => return Err(failed(1, "it is not the first one of an export")),
            // It breaks the chain like any other change of an entry.
            Err(_) => Line::Entry { sequence: -1, text: String::new(), hash: String::new() },
        });
    }
    let Some(Line::Start { format, exported_at, public_key }) = lines.first() else {
        return Err(failed(1, "it is not the first one of an export"));
    };
    if format != FORMAT {
        return Err(failed(1, &format!("the format is not {FORMAT:?}")));
    }
    let heads: Vec<SignedHead> = lines
        .iter()
        .filter_map(|line| if let Line::Head { head } = line { Some((**head).clone()) } else { None })
        .collect();
    let count = heads.len();
    let mut log = LogVerifier::new(SigningEvidence {
        heads,
        published,
        public_key: given.clone().or_else(|| public_key.clone()),
        is_key_given: given.is_some(),
        is_stopped: true,
        ..SigningEvidence::default()
    });
    let mut entries = 0;
    for line in &lines {
        if let Line::Entry { sequence, text, hash } = line {
            log.push(*sequence, text, hash);
            entries += 1;
        }
    }
    let mut found = log.finish(*exported_at, is_signature_valid);
    if !matches!(lines.last(), Some(Line::End { entries: all, heads }) if (*all, *heads) == (entries, count)) {
        let detail = "the file is not complete, or lines were removed or added; export the log again";
        found.add_fault(FaultCode::Unreadable, Some(found.entries + 1), detail.to_owned());
    }
    Ok(found)
}
