//! One segment file: frames one after another.
//!
//! Frame: magic `WRB1`, CRC-32 over all that follows, payload length u32, offset u64, payload.
//! The magic lets a reader find the next frame after damage.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use wardroom_domain::mutant;

const MAGIC: [u8; 4] = *b"WRB1";
const HEADER: usize = 20;

/// The file name of the segment whose first record has this offset.
pub(crate) fn path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.seg"))
}

/// The base offsets of all segments in a folder, ascending.
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

/// Appends one frame to `out`; its payload comes in two parts.
pub(crate) fn frame(out: &mut Vec<u8>, offset: u64, head: &[u8], body: &[u8]) {
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

/// What stands at a position of a segment.
pub(crate) enum Found {
    /// A whole frame; the next one starts at `next`.
    Frame { offset: u64, payload: Bytes, next: u64 },
    /// Damage; the next plausible frame starts at `next`.
    Damage { next: u64 },
    /// Bytes in which no frame begins, up to the end.
    Torn,
    /// Nothing more.
    End,
}

/// Reads what stands at `position`.
pub(crate) fn read_at(file: &mut File, position: u64) -> std::io::Result<Found> {
    file.seek(SeekFrom::Start(position))?;
    let mut header = [0; HEADER];
    let got = read_full(file, &mut header)?;
    if got == 0 {
        return Ok(Found::End);
    }
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let left = file.metadata()?.len().saturating_sub(position + HEADER as u64);
    if got == HEADER && header[..4] == MAGIC && length as u64 <= left {
        let mut payload = Vec::with_capacity(length);
        if file.by_ref().take(length as u64).read_to_end(&mut payload)? == length {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&header[8..]);
            crc.update(&payload);
            if crc.finalize().to_le_bytes() == header[4..8] || mutant::on("skip-checksum") {
                let mut offset = [0; 8];
                offset.copy_from_slice(&header[12..]);
                let next = position + (HEADER + length) as u64;
                return Ok(Found::Frame { offset: u64::from_le_bytes(offset), payload: payload.into(), next });
            }
        }
    }
    Ok(match next_magic(file, position + 1)? {
        Some(next) => Found::Damage { next },
        None => Found::Torn,
    })
}

/// The first bytes of a frame.
pub(crate) struct Start {
    /// Its record.
    pub(crate) offset: u64,
    /// Length of its payload.
    pub(crate) length: u64,
    /// Where the next frame starts.
    pub(crate) next: u64,
    bytes: [u8; START],
    got: usize,
}

/// Enough for the head of nearly every request.
const START: usize = 512;

impl Start {
    /// What was read of the payload.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER..self.got).unwrap_or_default()
    }
}

/// Reads the beginning of what stands at `position`, whose checksum nobody looks at; nothing if no frame begins there.
pub(crate) fn start_at(file: &File, position: u64) -> std::io::Result<Option<Start>> {
    let mut bytes = [0; START];
    let got = file.read_at(&mut bytes, position)?;
    let [magic @ .., _, _, _, _] = bytes.first_chunk::<8>().copied().unwrap_or_default();
    let (length, offset) = (number(&bytes[8..12]), number(&bytes[12..HEADER]));
    let start = Start { offset, length, next: position + HEADER as u64 + length, bytes, got };
    Ok((magic == MAGIC && got > HEADER).then_some(start))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Where valid frames end: the position after the last whole frame, and the offset after it.
/// `None` as offset means that the segment holds no frame.
pub(crate) fn valid_end(file: &mut File) -> std::io::Result<(u64, Option<u64>)> {
    let (mut position, mut end, mut next_offset) = (0, 0, None);
    loop {
        match read_at(file, position)? {
            Found::Frame { offset, next, .. } => {
                (position, end, next_offset) = (next, next, Some(offset + 1));
            }
            Found::Damage { next } => position = next,
            Found::Torn | Found::End => return Ok((end, next_offset)),
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

fn next_magic(file: &mut File, from: u64) -> std::io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail.windows(MAGIC.len()).position(|window| window == MAGIC).map(|at| from + at as u64))
}
