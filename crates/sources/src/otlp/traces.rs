//! Spans. Their events and links stay in the bus with the body.

use wardroom_domain::{Labels, RefusalReason, Span, SpanKind, Timestamp};
use wardroom_edge::Inflated;

use super::attributes::{Pair, bounded_pairs};
use crate::admit::refuse;
use crate::protobuf::{Broken, Field, Message, push};
use crate::{Decoded, RequestHead};

/// Reads an `ExportTraceServiceRequest`.
pub(super) fn read_request(plain: Inflated, _: &RequestHead) -> Result<Decoded, Broken> {
    let mut decoded = Decoded::default();
    let mut position = 0;
    each_resource(plain.bytes(), &mut |resource, _, record| {
        match read_span(resource, record)? {
            Ok(span) => {
                push(&mut decoded.spans, span)?;
                decoded.positions.push(position);
            }
            Err(detail) => {
                refuse(&mut decoded.refused, position, RefusalReason::Malformed, detail.to_owned());
            }
        }
        position += 1;
        if position as usize > crate::source::MAX_RECORDS { Err(Broken::TooMany) } else { Ok(()) }
    })?;
    Ok(decoded)
}

/// Told of each record: the resource's attributes, its service, and the record's bytes.
pub(super) type EachRecord<'a> = dyn FnMut(&[Pair<'_>], &str, &[u8]) -> Result<(), Broken> + 'a;

/// Walks a request of logs or spans, which are built alike: resources, in them scopes, in them records.
pub(super) fn each_resource(plain: &[u8], each: &mut EachRecord<'_>) -> Result<(), Broken> {
    let mut request = Message::new(plain);
    while let Some((number, field)) = request.next()? {
        let (1, Field::Bytes(_, group)) = (number, field) else { continue };
        let mut resource = Vec::new();
        let mut parts = Message::new(group);
        while let Some((number, field)) = parts.next()? {
            if let (1, Field::Bytes(_, message)) = (number, field) {
                resource = bounded_pairs(message, 1)?;
            }
        }
        let service = resource.iter().find(|(key, _)| key == "service.name");
        let service = service.map(|(_, name)| name.to_string()).unwrap_or_default();
        let mut parts = Message::new(group);
        while let Some((number, field)) = parts.next()? {
            let (2, Field::Bytes(_, scope)) = (number, field) else { continue };
            let mut records = Message::new(scope);
            while let Some((number, field)) = records.next()? {
                if let (2, Field::Bytes(_, record)) = (number, field) {
                    each(&resource, &service, record)?;
                }
            }
        }
    }
    Ok(())
}

fn read_span(resource: &[Pair<'_>], record: &[u8]) -> Result<Result<Span, &'static str>, Broken> {
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
    let own = bounded_pairs(record, 9)?;
    let moment = |nanos: u64| Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
    let labels = own.iter().chain(resource).map(|(key, value)| (&**key, &**value)).collect();
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
        start: moment(start),
        end: moment(end),
        failed,
        labels: Labels::new(labels),
    }))
}
