//! The append-only stream of sealed blocks: persisted by the caller and read back through the page cache.
//!
//! Problem: the blocks of the last hours would be most of the memory of a series, and almost none of them is ever
//! read. Model: one byte stream per tenant. Each block has an address in the stream and stores the distance to the
//! previous block of its series, so a series is a chain from its newest block backwards and costs eight bytes in
//! memory. The caller reads bytes by address ([`ReadAt`]); this module does no I/O.
//!
//! Entry layout: distance to the previous block u40 (0: none), size u16, CRC-32 u32 over both and the block (all
//! little-endian), block. An entry holds no series id, because ids are renumbered after an eviction.

use std::num::NonZeroU64;

use wardroom_domain::Sample;

use crate::recent_samples::block_codec;

/// Copies the stream's bytes from an address into the buffer and returns how many were copied; `None` if they cannot
/// be read.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> Option<usize> + 'a;

/// Address of the first byte of a stream. Address 0 means "no block".
pub const STREAM_START: u64 = 1;

/// Size of an entry's header, in bytes.
const HEADER_BYTES: usize = 11;
/// Size of the first read of an entry, in bytes: covers almost every entry whole.
const FIRST_READ_BYTES: usize = 128;
/// Maximum distance between two blocks of a chain, in bytes; a longer one ends the chain.
const MAX_BLOCK_DISTANCE_BYTES: u64 = (1 << 40) - 1;

/// Appends an entry; `back` is the distance to the previous block of the series, 0 for none.
pub(crate) fn append_block(out: &mut Vec<u8>, distance_bytes: u64, samples: &[Sample]) {
    let start = out.len();
    let distance_bytes = if distance_bytes > MAX_BLOCK_DISTANCE_BYTES { 0 } else { distance_bytes };
    out.extend(&distance_bytes.to_le_bytes()[..5]);
    out.extend([0; 6]);
    block_codec::encode(samples, out);
    let size = (out.len() - start - HEADER_BYTES) as u16;
    out[start + 5..start + 7].copy_from_slice(&size.to_le_bytes());
    let crc = checksum(&out[start..start + 7], &out[start + HEADER_BYTES..]);
    out[start + 7..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the chain of a series' blocks, newest first.
#[derive(Debug)]
pub(crate) struct ChainReader {
    /// Address of the next block to read.
    pub(crate) next: Option<NonZeroU64>,
    /// Reading stops at the first block that ends before this time.
    start_ms: i64,
    /// Samples read, block by block, newest block first.
    samples: Vec<Sample>,
    /// Start of each block in `samples`.
    block_starts: Vec<usize>,
}

impl ChainReader {
    /// Creates a reader that starts at this block and stops at the first block that ends before `start_ms`.
    pub(crate) const fn new(next: Option<NonZeroU64>, start_ms: i64) -> Self {
        Self { next, start_ms, samples: Vec::new(), block_starts: Vec::new() }
    }

    /// Restarts at another block and reuses the buffers.
    pub(crate) fn restart(&mut self, next: Option<NonZeroU64>) {
        self.next = next;
        self.samples.clear();
        self.block_starts.clear();
    }

    /// Returns the time before which blocks are skipped.
    pub(crate) const fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// Reads blocks down to this address. Returns `None` if an entry cannot be read or is damaged.
    pub(crate) fn read_down_to(&mut self, down_to: u64, read_at: &ReadAt<'_>) -> Option<()> {
        while let Some(address) = self.next.filter(|address| address.get() >= down_to) {
            let before = self.samples.len();
            let distance_bytes = read_entry(address.get(), read_at, &mut self.samples)?;
            self.next =
                address.get().checked_sub(distance_bytes).filter(|_| distance_bytes > 0).and_then(NonZeroU64::new);
            if self.samples[before..].last().is_none_or(|last| last.ts_ms < self.start_ms) {
                self.samples.truncate(before);
                self.next = None;
            } else {
                self.block_starts.push(before);
            }
        }
        Some(())
    }

    /// Appends the samples read so far, ascending by time.
    pub(crate) fn append_to(&self, all: &mut Vec<Sample>) {
        all.reserve(self.samples.len());
        let mut end = self.samples.len();
        for start in self.block_starts.iter().rev() {
            all.extend_from_slice(&self.samples[*start..end]);
            end = *start;
        }
    }
}

/// Appends the samples of the entry at an address and returns the distance to the previous block.
fn read_entry(address: u64, read_at: &ReadAt<'_>, samples: &mut Vec<Sample>) -> Option<u64> {
    let mut buffer = [0; FIRST_READ_BYTES];
    let count = read_at(address, &mut buffer)?;
    let header = buffer.get(..count)?.first_chunk::<HEADER_BYTES>()?;
    let [p, q, r, s, t, low, high, crc @ ..] = *header;
    let distance_bytes = u64::from_le_bytes([p, q, r, s, t, 0, 0, 0]);
    let size = usize::from(u16::from_le_bytes([low, high]));
    let mut long = Vec::new();
    let block = if HEADER_BYTES + size <= count {
        &buffer[HEADER_BYTES..HEADER_BYTES + size]
    } else {
        long.resize(size, 0);
        (read_at(address + HEADER_BYTES as u64, &mut long)? == size).then_some(long.as_slice())?
    };
    let valid = u32::from_le_bytes(crc) == checksum(&header[..7], block);
    (valid && block_codec::decode(block, samples)?.is_empty()).then_some(distance_bytes)
}

fn checksum(header: &[u8], block: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(block);
    crc.finalize()
}

/// Returns a [`ReadAt`] over bytes in memory whose first byte has the address `base`.
pub(crate) fn read_from_memory(base: u64, bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> Option<usize> {
    move |address, buffer| {
        let rest = bytes.get(usize::try_from(address.checked_sub(base)?).ok()?..)?;
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_a_damaged_entry() {
        let samples = |from: i64| {
            (0..16).map(|step| Sample { ts_ms: from + step, value: (step * from) as f64 }).collect::<Vec<_>>()
        };
        let mut stream = Vec::new();
        append_block(&mut stream, 0, &samples(0));
        let second = stream.len() as u64;
        append_block(&mut stream, second, &samples(100));
        let read = |stream: &[u8]| {
            let next = NonZeroU64::new(STREAM_START + second);
            let (mut chain, mut all) = (ChainReader::new(next, i64::MIN), Vec::new());
            chain.read_down_to(STREAM_START, &read_from_memory(STREAM_START, stream))?;
            chain.append_to(&mut all);
            Some(all.len()).filter(|_| all.is_sorted_by_key(|sample| sample.ts_ms))
        };
        assert_eq!(read(&stream), Some(32));
        for index in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[index] ^= 1;
            assert_eq!(read(&damaged), None, "byte {index}");
        }
        assert_eq!(read(&stream[..stream.len() - 1]), None, "truncated");
    }
}
