//! OTLP spans. Span events and links are not decoded; the bus has them in the body.

use wardroom_domain::{Labels, RefusalReason, Span, SpanKind, Timestamp};
use wardroom_edge::InflatedBody;

use super::attributes::{Attribute, read_bounded_attributes};
use super::resources::for_each_record;
use crate::decode::decoded::Decoded;
use crate::decode::failures::MAX_RECORDS;
use crate::decode::protobuf::{DecodeError, Field, Message, push_bounded};
use crate::decode::refusals::push_refusal;
use crate::source::RequestHead;

/// Reads an `ExportTraceServiceRequest`.
pub(super) fn read_request(plain: InflatedBody, _: &RequestHead) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded::default();
    let mut position = 0;
    for_each_record(plain.bytes(), &mut |resource, _, record| {
        match read_span(resource, record)? {
            Ok(span) => {
                push_bounded(&mut decoded.spans, span)?;
                decoded.positions.push(position);
            }
            Err(detail) => {
                push_refusal(&mut decoded.refused, position, RefusalReason::Malformed, detail.to_owned());
            }
        }
        position += 1;
        if position as usize > MAX_RECORDS { Err(DecodeError::TooManyRecords) } else { Ok(()) }
    })?;
    Ok(decoded)
}

/// Reads a `Span`; the inner error says why it is refused.
fn read_span(resource: &[Attribute<'_>], record: &[u8]) -> Result<Result<Span, &'static str>, DecodeError> {
    let (mut trace, mut id, mut parent) = (&[][..], &[][..], &[][..]);
    let (mut name, mut kind, mut start, mut end, mut failed) = ("".into(), 0, 0, 0, false);
    let mut fields = Message::new(record);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => trace = bytes,
            (2, Field::Bytes(_, bytes)) => id = bytes,
            (4, Field::Bytes(_, bytes)) => parent = bytes,
            (5, Field::Bytes(_, bytes)) => name = String::from_utf8_lossy(bytes),
            (6, Field::Varint(number)) => kind = number,
            (7, Field::Fixed64(nanos)) => start = nanos,
            (8, Field::Fixed64(nanos)) => end = nanos,
            (15, Field::Bytes(_, status)) => {
                let mut fields = Message::new(status);
                while let Some((number, field)) = fields.next()? {
                    if let (3, Field::Varint(code)) = (number, field) {
                        failed = code == 2;
                    }
                }
            }
            _ => {}
        }
    }
    let (Ok(trace_id), Ok(span_id)) = (trace.try_into(), id.try_into()) else {
        return Ok(Err("trace_id must have 16 bytes and span_id 8"));
    };
    if trace_id == [0; 16] || span_id == [0; 8] {
        return Ok(Err("trace_id and span_id must not be zero"));
    }
    let span_attributes = read_bounded_attributes(record, 9)?;
    let timestamp = |nanos: u64| Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
    let labels = span_attributes.iter().chain(resource).map(|(key, value)| (&**key, &**value)).collect();
    Ok(Ok(Span {
        trace_id,
        span_id,
        parent_id: parent.try_into().unwrap_or_default(),
        kind: match kind {
            2 => SpanKind::Server,
            3 => SpanKind::Client,
            4 => SpanKind::Producer,
            5 => SpanKind::Consumer,
            _ => SpanKind::Internal,
        },
        name: name.chars().take(300).collect(),
        start: timestamp(start),
        end: timestamp(end),
        failed,
        labels: Labels::new(labels),
    }))
}
