//! Log records.

use wardroom_domain::{Labels, LogEntry, Severity, Timestamp};
use wardroom_edge::Inflated;

use super::attributes::{Pair, bounded_pairs, text};
use crate::protobuf::{Broken, Field, Message, push};
use crate::{Decoded, RequestHead};

/// Reads an `ExportLogsServiceRequest`.
pub(super) fn read_request(plain: Inflated, head: &RequestHead) -> Result<Decoded, Broken> {
    let mut decoded = Decoded::default();
    super::traces::each_resource(plain.bytes(), &mut |resource, service, record| {
        push(&mut decoded.logs, read_record(resource, service, record, head)?)
    })?;
    Ok(decoded)
}

fn read_record(resource: &[Pair<'_>], service: &str, record: &[u8], head: &RequestHead) -> Result<LogEntry, Broken> {
    let (mut at, mut observed, mut number, mut word) = (0, 0, 0, "".into());
    let (mut message, mut ids) = (String::new(), Vec::new());
    let mut fields = Message::new(record);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Field::Fixed64(nanos)) => at = nanos,
            (2, Field::Varint(severity)) => number = severity,
            (3, Field::Bytes(_, bytes)) => word = String::from_utf8_lossy(bytes),
            (5, Field::Bytes(_, body)) => message = text(body)?.into_owned(),
            (9, Field::Bytes(_, id)) if id.iter().any(|byte| *byte != 0) => ids.push(("trace_id", hex(id))),
            (10, Field::Bytes(_, id)) if id.iter().any(|byte| *byte != 0) => ids.push(("span_id", hex(id))),
            (11, Field::Fixed64(nanos)) => observed = nanos,
            _ => {}
        }
    }
    let own = bounded_pairs(record, 6)?;
    let labels = own.iter().chain(resource).map(|(key, value)| (&**key, &**value));
    let labels = ids.iter().map(|(key, id)| (*key, id.as_str())).chain(labels).collect();
    let nanos = [at, observed].into_iter().find(|nanos| *nanos > 0);
    Ok(LogEntry {
        at: nanos.and_then(|nanos| i64::try_from(nanos).ok()).map_or(head.received_at, Timestamp::from_nanos),
        severity: severity_of(number, &word),
        message,
        service: service.to_owned(),
        labels: Labels::new(labels),
    })
}

/// By the number; by the word where there is none.
fn severity_of(number: u64, word: &str) -> Severity {
    match number {
        0 => Severity::of_level(word),
        1..=12 => Severity::Info,
        13..=16 => Severity::Warning,
        17..=20 => Severity::High,
        _ => Severity::Critical,
    }
}

/// An id as hexadecimal text.
pub(super) fn hex(id: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    id.iter().take(16).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
