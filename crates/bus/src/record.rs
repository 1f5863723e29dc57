//! Encoding of a record: header fields and body. Format version 2.
//!
//! All integers are little-endian. Payload: version u8, received-at i64 (ns), five texts (u16 length + UTF-8: tenant,
//! principal, protocol, content type, content encoding), refusals (u32 count, each first u32, last u32, reason u8),
//! flags u8 (bit 0: has events), SHA-256 of the body (32 bytes), body size u32, body. Version 1 has no flags.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wardroom_domain::{Envelope, Principal, Refusal, RefusalReason, TenantId, Timestamp, mutant};

use crate::segment::FramePrefix;

const FORMAT_VERSION: u8 = 2;
/// The format version without flags.
const VERSION_WITHOUT_FLAGS: u8 = 1;
/// The flag of [`Envelope::has_events`].
const HAS_EVENTS: u8 = 1;

/// Initial capacity for an encoded header; enough for nearly every request.
const HEADER_CAPACITY_BYTES: usize = 160;

/// A record read from the bus.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    /// The header.
    pub envelope: Envelope,
    /// The body of the request, as received; empty if it was skipped.
    pub body: Bytes,
    /// Location of its bytes.
    pub location: RecordLocation,
}

/// The location of a record: a frame in a segment file (ADR 023); its payload is described in this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLocation {
    /// Offset of the segment's first record, which is its file name.
    pub segment: u64,
    /// Position of the frame in the file.
    pub position: u64,
    /// Length of the frame in bytes.
    pub bytes: u64,
    /// SHA-256 of the body.
    pub sha256: [u8; 32],
    /// Length of the body in bytes.
    pub size: u32,
}

/// Decodes the record of a frame with a valid checksum, given its segment, position, length, offset and payload. The
/// body's SHA-256 is not verified for requests that `skip_digest` selects.
pub(crate) fn decode(
    segment: u64,
    (position, bytes): (u64, u64),
    offset: u64,
    payload: &Bytes,
    skip_digest: &dyn Fn(&Envelope) -> bool,
) -> Result<Record, RecordHeaderError> {
    let (envelope, sha256, body) = split_payload(payload)?;
    if !skip_digest(&envelope) {
        verify_digest(body, sha256)?;
    }
    let (size, body) = (body.len() as u32, payload.slice_ref(body));
    Ok(Record { offset, envelope, body, location: RecordLocation { segment, position, bytes, sha256, size } })
}

/// Decodes a record without its body from the first bytes of its frame; `None` if they do not hold the whole header or
/// do not match the payload length.
pub(crate) fn decode_without_body(segment: u64, position: u64, prefix: &FramePrefix) -> Option<Record> {
    let Header { envelope, digest: sha256, size, rest } = decode_header(prefix.payload()).ok()?;
    let header_len = prefix.payload().len() - rest.len();
    let location = RecordLocation { segment, position, bytes: prefix.next - position, sha256, size };
    let fits = header_len as u64 + u64::from(size) == prefix.length;
    fits.then_some(Record { offset: prefix.offset, envelope, body: Bytes::new(), location })
}

/// Why a payload cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordHeaderError {
    /// Written by a newer version.
    #[error("record version {0} is unknown to this build; upgrade wardroom")]
    Version(u8),
    /// Truncated or malformed.
    #[error("record is damaged: {0}")]
    Damaged(&'static str),
}

/// Encodes a request as a payload.
pub fn encode_payload(envelope: &Envelope, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + HEADER_CAPACITY_BYTES);
    append_header(&mut out, envelope, body);
    out.extend(body);
    out
}

/// Encodes the part of a payload before the body.
pub(crate) fn encode_header(envelope: &Envelope, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_CAPACITY_BYTES);
    append_header(&mut out, envelope, body);
    out
}

fn append_header(out: &mut Vec<u8>, envelope: &Envelope, body: &[u8]) {
    out.push(FORMAT_VERSION);
    out.extend(envelope.received_at.nanos().to_le_bytes());
    for text in [
        envelope.tenant.as_str(),
        envelope.principal.as_str(),
        &envelope.protocol,
        &envelope.content_type,
        &envelope.content_encoding,
    ] {
        let bytes = text.as_bytes();
        let kept = bytes.len().min(usize::from(u16::MAX));
        out.extend((kept as u16).to_le_bytes());
        out.extend(bytes.iter().take(kept));
    }
    out.extend((envelope.refused.len() as u32).to_le_bytes());
    for refusal in &envelope.refused {
        out.extend(refusal.first.to_le_bytes());
        out.extend(refusal.last.to_le_bytes());
        out.push(refusal.reason.code());
    }
    out.push(if envelope.has_events { HAS_EVENTS } else { 0 });
    out.extend(Sha256::digest(body));
    out.extend((body.len() as u32).to_le_bytes());
}

/// Decodes a payload and verifies the body.
///
/// # Errors
/// Returns an error if the payload is damaged or was written by a newer version.
pub fn decode_payload(payload: &[u8]) -> Result<(Envelope, Bytes), RecordHeaderError> {
    let (envelope, digest, body) = split_payload(payload)?;
    verify_digest(body, digest)?;
    Ok((envelope, Bytes::copy_from_slice(body)))
}

/// Verifies the SHA-256 of a body.
fn verify_digest(body: &[u8], digest: [u8; 32]) -> Result<(), RecordHeaderError> {
    let valid = Sha256::digest(body).as_slice() == digest || mutant::is_enabled("skip-checksum");
    if valid { Ok(()) } else { Err(RecordHeaderError::Damaged("body digest")) }
}

/// Splits a payload into envelope, body digest and body.
fn split_payload(payload: &[u8]) -> Result<(Envelope, [u8; 32], &[u8]), RecordHeaderError> {
    let Header { envelope, digest, size, rest } = decode_header(payload)?;
    if rest.len() != size as usize {
        return Err(RecordHeaderError::Damaged("body size"));
    }
    Ok((envelope, digest, rest))
}

/// The decoded part of a payload before the body.
struct Header<'a> {
    envelope: Envelope,
    digest: [u8; 32],
    /// Size of the body in bytes.
    size: u32,
    /// The bytes after the header: the body, or its beginning.
    rest: &'a [u8],
}

fn decode_header(payload: &[u8]) -> Result<Header<'_>, RecordHeaderError> {
    let mut cursor = Cursor(payload);
    let version = cursor.take::<1>()?[0];
    if ![FORMAT_VERSION, VERSION_WITHOUT_FLAGS].contains(&version) {
        return Err(RecordHeaderError::Version(version));
    }
    let received_at = Timestamp::from_nanos(i64::from_le_bytes(cursor.take()?));
    let tenant = TenantId::new(cursor.take_text()?).map_err(|_| RecordHeaderError::Damaged("tenant"))?;
    let principal = Principal::new(cursor.take_text()?).map_err(|_| RecordHeaderError::Damaged("principal"))?;
    let protocol = cursor.take_text()?;
    let content_type = cursor.take_text()?;
    let content_encoding = cursor.take_text()?;
    let count = u32::from_le_bytes(cursor.take()?);
    let mut refused = Vec::new();
    for _ in 0..count {
        let first = u32::from_le_bytes(cursor.take()?);
        let last = u32::from_le_bytes(cursor.take()?);
        let reason = RefusalReason::from_code(cursor.take::<1>()?[0]).ok_or(RecordHeaderError::Damaged("reason"))?;
        refused.push(Refusal { first, last, reason, detail: String::new() });
    }
    let flags = if version == VERSION_WITHOUT_FLAGS { HAS_EVENTS } else { cursor.take::<1>()?[0] };
    let digest: [u8; 32] = cursor.take()?;
    let size = u32::from_le_bytes(cursor.take()?);
    let has_events = flags & HAS_EVENTS != 0;
    let envelope =
        Envelope { tenant, principal, protocol, content_type, content_encoding, received_at, refused, has_events };
    Ok(Header { envelope, digest, size, rest: cursor.0 })
}

/// The bytes left to decode.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordHeaderError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(RecordHeaderError::Damaged("truncated"))?;
        self.0 = tail;
        Ok(*head)
    }

    fn take_text(&mut self) -> Result<String, RecordHeaderError> {
        let size = usize::from(u16::from_le_bytes(self.take()?));
        let (head, tail) = self.0.split_at_checked(size).ok_or(RecordHeaderError::Damaged("truncated"))?;
        self.0 = tail;
        String::from_utf8(head.to_vec()).map_err(|_| RecordHeaderError::Damaged("text"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            tenant: TenantId::main(),
            principal: Principal::wardroom(),
            protocol: "prometheus_remote_write".into(),
            content_type: "application/x-protobuf".into(),
            content_encoding: "snappy".into(),
            received_at: Timestamp::from_millis(1_795_255_038_178),
            refused: vec![Refusal { first: 3, last: 4, reason: RefusalReason::TooOld, detail: String::new() }],
            has_events: true,
        }
    }

    /// Records of every released format version must stay readable.
    #[test]
    fn reads_every_format_version() {
        let (first, second) =
            (include_bytes!("../tests/formats/record-v1.bin"), include_bytes!("../tests/formats/record-v2.bin"));
        for sample in [&first[..], &second[..]] {
            let (read, body) = decode_payload(sample).unwrap();
            assert_eq!(split_payload(sample).unwrap().1, Sha256::digest(&body).as_slice());
            assert_eq!((read, &body[..]), (envelope(), &b"body"[..]));
        }
        assert_eq!(encode_payload(&envelope(), b"body"), second);
    }

    #[test]
    fn refuses_a_newer_format_version() {
        let mut payload = encode_payload(&envelope(), b"body");
        payload[0] = 9;
        assert_eq!(decode_payload(&payload).unwrap_err(), RecordHeaderError::Version(9));
    }

    proptest! {
        #[test]
        fn any_body_round_trips(body: Vec<u8>) {
            let (read, decoded_body) = decode_payload(&encode_payload(&envelope(), &body)).unwrap();
            prop_assert_eq!(read, envelope());
            prop_assert_eq!(&decoded_body[..], &body[..]);
        }

        #[test]
        fn decoding_any_bytes_does_not_panic(bytes: Vec<u8>) {
            let _outcome = decode_payload(&bytes);
        }
    }
}
