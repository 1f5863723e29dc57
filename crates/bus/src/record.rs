//! One record: header fields and body, as bytes. Format version 2.
//!
//! All integers little-endian. Payload: version u8, received-at i64 (ns), five texts (u16 length +
//! UTF-8: tenant, principal, protocol, content type, content encoding), refusals (u32 count, each
//! first u32, last u32, reason u8), flags u8 (bit 0: events), SHA-256 of the body (32 bytes), body size u32, body. Version 1 has
//! no flags.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wardroom_domain::{Envelope, Principal, Refusal, RefusalReason, TenantId, Timestamp, mutant};

use crate::segment;

const VERSION: u8 = 2;
/// The version without flags.
const WITHOUT_FLAGS: u8 = 1;
/// The flag of [`Envelope::events`].
const EVENTS: u8 = 1;

/// One record as read back.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it stands.
    pub offset: u64,
    /// Its header.
    pub envelope: Envelope,
    /// The request's body, as received; empty if nobody asked for it.
    pub body: Bytes,
    /// Where its bytes are.
    pub place: Place,
}

/// Where the bytes of a record are: a frame in a segment's file (ADR 023), whose payload this module describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of the segment's first record: its file's name.
    pub segment: u64,
    /// First byte of the frame in the file.
    pub position: u64,
    /// Length of the frame in bytes.
    pub bytes: u64,
    /// SHA-256 of the body.
    pub sha256: [u8; 32],
    /// Length of the body in bytes.
    pub size: u32,
}

/// The record of a frame: its segment, position and length there, its offset and payload. Of bodies that are trusted only the
/// frame's checksum was looked at.
pub(crate) fn at(
    segment: u64,
    (position, bytes): (u64, u64),
    offset: u64,
    payload: &Bytes,
    trusted: &dyn Fn(&Envelope) -> bool,
) -> Result<Record, RecordHeaderError> {
    let (envelope, sha256, body) = parts(payload)?;
    if !trusted(&envelope) {
        check(body, sha256)?;
    }
    let (size, body) = (body.len() as u32, payload.slice_ref(body));
    Ok(Record { offset, envelope, body, place: Place { segment, position, bytes, sha256, size } })
}

/// The same without the body, from the first bytes of a payload; nothing if they do not reach so far, or do not fit its length.
pub(crate) fn head_at(segment: u64, position: u64, start: &segment::Start) -> Option<Record> {
    let Opened { envelope, digest: sha256, size, rest } = opened(start.payload()).ok()?;
    let head = start.payload().len() - rest.len();
    let place = Place { segment, position, bytes: start.next - position, sha256, size };
    let fits = head as u64 + u64::from(size) == start.length;
    fits.then_some(Record { offset: start.offset, envelope, body: Bytes::new(), place })
}

/// Why a payload could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordHeaderError {
    /// Written by a newer version.
    #[error("record version {0} is unknown to this build; upgrade wardroom")]
    Version(u8),
    /// Cut short or not well formed.
    #[error("record is damaged: {0}")]
    Damaged(&'static str),
}

/// Turns a request into a payload.
pub fn encode_payload(envelope: &Envelope, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 160);
    put_head(&mut out, envelope, body);
    out.extend(body);
    out
}

/// What of a payload stands before the body.
pub(crate) fn head(envelope: &Envelope, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    put_head(&mut out, envelope, body);
    out
}

fn put_head(out: &mut Vec<u8>, envelope: &Envelope, body: &[u8]) {
    out.push(VERSION);
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
    out.push(if envelope.events { EVENTS } else { 0 });
    out.extend(Sha256::digest(body));
    out.extend((body.len() as u32).to_le_bytes());
}

/// Reads a payload back.
///
/// # Errors
/// A newer version, or damage.
pub fn decode_payload(payload: &[u8]) -> Result<(Envelope, Bytes), RecordHeaderError> {
    let (envelope, digest, body) = parts(payload)?;
    check(body, digest)?;
    Ok((envelope, Bytes::copy_from_slice(body)))
}

/// Whether a body is the one that was received.
fn check(body: &[u8], digest: [u8; 32]) -> Result<(), RecordHeaderError> {
    let sound = Sha256::digest(body).as_slice() == digest || mutant::on("skip-checksum");
    if sound { Ok(()) } else { Err(RecordHeaderError::Damaged("body digest")) }
}

/// Header, digest of the body and body.
fn parts(payload: &[u8]) -> Result<(Envelope, [u8; 32], &[u8]), RecordHeaderError> {
    let Opened { envelope, digest, size, rest } = opened(payload)?;
    if rest.len() != size as usize {
        return Err(RecordHeaderError::Damaged("body size"));
    }
    Ok((envelope, digest, rest))
}

/// What stands before a body, and what is there of the body itself.
struct Opened<'a> {
    envelope: Envelope,
    digest: [u8; 32],
    size: u32,
    rest: &'a [u8],
}

fn opened(payload: &[u8]) -> Result<Opened<'_>, RecordHeaderError> {
    let mut rest = Rest(payload);
    let version = rest.take::<1>()?[0];
    if ![VERSION, WITHOUT_FLAGS].contains(&version) {
        return Err(RecordHeaderError::Version(version));
    }
    let received_at = Timestamp::from_nanos(i64::from_le_bytes(rest.take()?));
    let tenant = TenantId::new(rest.text()?).map_err(|_| RecordHeaderError::Damaged("tenant"))?;
    let principal = Principal::new(rest.text()?).map_err(|_| RecordHeaderError::Damaged("principal"))?;
    let protocol = rest.text()?;
    let content_type = rest.text()?;
    let content_encoding = rest.text()?;
    let count = u32::from_le_bytes(rest.take()?);
    let mut refused = Vec::new();
    for _ in 0..count {
        let first = u32::from_le_bytes(rest.take()?);
        let last = u32::from_le_bytes(rest.take()?);
        let reason = RefusalReason::of_code(rest.take::<1>()?[0]).ok_or(RecordHeaderError::Damaged("reason"))?;
        refused.push(Refusal { first, last, reason, detail: String::new() });
    }
    let flags = if version == WITHOUT_FLAGS { EVENTS } else { rest.take::<1>()?[0] };
    let digest: [u8; 32] = rest.take()?;
    let size = u32::from_le_bytes(rest.take()?);
    let events = flags & EVENTS != 0;
    let envelope =
        Envelope { tenant, principal, protocol, content_type, content_encoding, received_at, refused, events };
    Ok(Opened { envelope, digest, size, rest: rest.0 })
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordHeaderError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(RecordHeaderError::Damaged("cut short"))?;
        self.0 = tail;
        Ok(*head)
    }

    fn text(&mut self) -> Result<String, RecordHeaderError> {
        let size = usize::from(u16::from_le_bytes(self.take()?));
        let (head, tail) = self.0.split_at_checked(size).ok_or(RecordHeaderError::Damaged("cut short"))?;
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
            events: true,
        }
    }

    /// A record of every format version ever released stays readable.
    #[test]
    fn every_version_stays_readable() {
        let (first, second) =
            (include_bytes!("../tests/formats/record-v1.bin"), include_bytes!("../tests/formats/record-v2.bin"));
        for sample in [&first[..], &second[..]] {
            let (read, body) = decode_payload(sample).unwrap();
            assert_eq!(parts(sample).unwrap().1, Sha256::digest(&body).as_slice());
            assert_eq!((read, &body[..]), (envelope(), &b"body"[..]));
        }
        assert_eq!(encode_payload(&envelope(), b"body"), second);
    }

    #[test]
    fn a_newer_version_is_refused_with_a_clear_word() {
        let mut payload = encode_payload(&envelope(), b"body");
        payload[0] = 9;
        assert_eq!(decode_payload(&payload).unwrap_err(), RecordHeaderError::Version(9));
    }

    proptest! {
        #[test]
        fn any_body_round_trips(body: Vec<u8>) {
            let (read, back) = decode_payload(&encode_payload(&envelope(), &body)).unwrap();
            prop_assert_eq!(read, envelope());
            prop_assert_eq!(&back[..], &body[..]);
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _outcome = decode_payload(&bytes);
        }
    }
}
