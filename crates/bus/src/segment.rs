//! The segment file: a sequence of frames.
//!
//! Frame: magic `WRB1`, CRC-32 of everything after it, payload length u32, offset u64 (all little-endian), payload.
//! The magic lets a reader resynchronise after damage.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use wardroom_domain::mutant;

const MAGIC: [u8; 4] = *b"WRB1";
const HEADER_BYTES: usize = 20;

/// Returns the path of the segment whose first record has this offset.
pub(crate) fn path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.seg"))
}

/// Lists the base offsets of all segments in a folder, ascending.
pub(crate) fn list(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let base: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".seg")).and_then(|stem| stem.parse().ok());
        bases.extend(base);
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Appends one frame to `out`; the payload is passed in two parts.
pub(crate) fn append_frame(out: &mut Vec<u8>, offset: u64, head: &[u8], body: &[u8]) {
    let start = out.len();
    out.extend(MAGIC);
    out.extend([0; 4]);
    out.extend(((head.len() + body.len()) as u32).to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend(head);
    out.extend(body);
    let crc = crc32fast::hash(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The content of a segment at a position.
pub(crate) enum Frame {
    /// A valid frame; the next one starts at `next`.
    Valid { offset: u64, payload: Bytes, next: u64 },
    /// Damaged bytes; the next possible frame starts at `next`.
    Damaged { next: u64 },
    /// Bytes without a frame up to the end of the file.
    Torn,
    /// End of the file.
    End,
}

/// Reads the frame at `position`.
pub(crate) fn read_frame(file: &mut File, position: u64) -> std::io::Result<Frame> {
    file.seek(SeekFrom::Start(position))?;
    let mut header = [0; HEADER_BYTES];
    let read = read_full(file, &mut header)?;
    if read == 0 {
        return Ok(Frame::End);
    }
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let remaining_bytes = file.metadata()?.len().saturating_sub(position + HEADER_BYTES as u64);
    if read == HEADER_BYTES && header[..4] == MAGIC && length as u64 <= remaining_bytes {
        let mut payload = Vec::with_capacity(length);
        if file.by_ref().take(length as u64).read_to_end(&mut payload)? == length {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&header[8..]);
            crc.update(&payload);
            if crc.finalize().to_le_bytes() == header[4..8] || mutant::is_enabled("skip-checksum") {
                let mut offset = [0; 8];
                offset.copy_from_slice(&header[12..]);
                let next = position + (HEADER_BYTES + length) as u64;
                return Ok(Frame::Valid { offset: u64::from_le_bytes(offset), payload: payload.into(), next });
            }
        }
    }
    Ok(match find_magic(file, position + 1)? {
        Some(next) => Frame::Damaged { next },
        None => Frame::Torn,
    })
}

/// The first bytes of a frame.
pub(crate) struct FramePrefix {
    /// Offset of the record.
    pub(crate) offset: u64,
    /// Length of the payload.
    pub(crate) length: u64,
    /// Position of the next frame.
    pub(crate) next: u64,
    bytes: [u8; PREFIX_BYTES],
    read: usize,
}

/// Bytes read of a frame: enough for the record header of nearly every request.
const PREFIX_BYTES: usize = 512;

impl FramePrefix {
    /// Returns the part of the payload that was read.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..self.read).unwrap_or_default()
    }
}

/// Reads the first bytes of the frame at `position` without verifying its checksum; `None` if there is no frame.
pub(crate) fn read_frame_prefix(file: &File, position: u64) -> std::io::Result<Option<FramePrefix>> {
    let mut bytes = [0; PREFIX_BYTES];
    let read = file.read_at(&mut bytes, position)?;
    let [magic @ .., _, _, _, _] = bytes.first_chunk::<8>().copied().unwrap_or_default();
    let (length, offset) = (little_endian(&bytes[8..12]), little_endian(&bytes[12..HEADER_BYTES]));
    let prefix = FramePrefix { offset, length, next: position + HEADER_BYTES as u64 + length, bytes, read };
    Ok((magic == MAGIC && read > HEADER_BYTES).then_some(prefix))
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Returns the position after the last valid frame and the offset after its record; no offset if the segment has no
/// valid frame.
pub(crate) fn valid_end(file: &mut File) -> std::io::Result<(u64, Option<u64>)> {
    let (mut position, mut end, mut next_offset) = (0, 0, None);
    loop {
        match read_frame(file, position)? {
            Frame::Valid { offset, next, .. } => {
                (position, end, next_offset) = (next, next, Some(offset + 1));
            }
            Frame::Damaged { next } => position = next,
            Frame::Torn | Frame::End => return Ok((end, next_offset)),
        }
    }
}

/// Reads until the buffer is full or the file ends, and returns the number of bytes.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read(&mut buffer[read..])? {
            0 => break,
            n => read += n,
        }
    }
    Ok(read)
}

/// Returns the position of the next magic at or after `from`.
fn find_magic(file: &mut File, from: u64) -> std::io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail.windows(MAGIC.len()).position(|window| window == MAGIC).map(|index| from + index as u64))
}
