//! OTLP log records.

use wardroom_domain::{Labels, LogEntry, Severity, Timestamp};
use wardroom_edge::InflatedBody;

use super::attributes::{Attribute, hex_id, read_bounded_attributes, value_text};
use super::resources::for_each_record;
use crate::decode::decoded::Decoded;
use crate::decode::protobuf::{DecodeError, Field, Message, push_bounded};
use crate::source::RequestHead;

/// Label with the name of an event; an attribute of this name has the same meaning for protocols without the field.
const EVENT_NAME: &str = "otel.event.name";

/// Reads an `ExportLogsServiceRequest`.
pub(super) fn read_request(plain: InflatedBody, head: &RequestHead) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded::default();
    for_each_record(plain.bytes(), &mut |resource, service, record| {
        push_bounded(&mut decoded.logs, read_record(resource, service, record, head)?)
    })?;
    Ok(decoded)
}

fn read_record(
    resource: &[Attribute<'_>],
    service: &str,
    record: &[u8],
    head: &RequestHead,
) -> Result<LogEntry, DecodeError> {
    let (mut time_nanos, mut observed, mut number, mut severity_text) = (0, 0, 0, "".into());
    let (mut message, mut event_name, mut ids) = (String::new(), "".into(), Vec::new());
    let mut fields = Message::new(record);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Field::Fixed64(nanos)) => time_nanos = nanos,
            (2, Field::Varint(severity)) => number = severity,
            (3, Field::Bytes(_, bytes)) => severity_text = String::from_utf8_lossy(bytes),
            (5, Field::Bytes(_, body)) => message = value_text(body)?.into_owned(),
            (9, Field::Bytes(_, id)) if id.iter().any(|byte| *byte != 0) => ids.push(("trace_id", hex_id(id))),
            (10, Field::Bytes(_, id)) if id.iter().any(|byte| *byte != 0) => ids.push(("span_id", hex_id(id))),
            (11, Field::Fixed64(nanos)) => observed = nanos,
            (12, Field::Bytes(_, bytes)) => event_name = String::from_utf8_lossy(bytes),
            _ => {}
        }
    }
    let record_attributes = read_bounded_attributes(record, 6)?;
    let labels = record_attributes.iter().chain(resource).map(|(key, value)| (&**key, &**value));
    let ids = ids.iter().map(|(key, id)| (*key, id.as_str()));
    let labels = ids.chain([(EVENT_NAME, &*event_name)]).chain(labels).collect();
    let nanos = [time_nanos, observed].into_iter().find(|nanos| *nanos > 0);
    Ok(LogEntry {
        at: nanos.and_then(|nanos| i64::try_from(nanos).ok()).map_or(head.received_at, Timestamp::from_nanos),
        severity: Severity::from_severity_number(number).unwrap_or_else(|| Severity::from_level(&severity_text)),
        message,
        service: service.to_owned(),
        labels: Labels::new(labels),
    })
}
