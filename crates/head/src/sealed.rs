//! The stream of sealed blocks: written once, kept on disk, read through the page cache.
//!
//! Problem: the blocks of the last hours are most of what a series would hold in memory, and hardly any of them is
//! ever read. Model: one stream of bytes for each tenant; a block has an address in it and names the block of
//! its series before it, so that a series is a chain from its newest block backwards, and costs eight bytes.
//! Whoever keeps the stream gives its bytes back by address ([`Fetch`]); here is no I/O.
//!
//! Entry: distance to the block before u40 (0: none), size u16, CRC-32 u32 of both and the block (little-endian),
//! block. Series are numbered anew when many have left, so no number stands in it.

use std::num::NonZeroU64;

use wardroom_domain::Sample;

use crate::block;

/// Copies the stream's bytes from an address on into the buffer and says how many there were; `None` if they cannot
/// be read.
pub type Fetch<'a> = dyn Fn(u64, &mut [u8]) -> Option<usize> + 'a;

/// Address of the first byte: 0 says "no block".
pub const START: u64 = 1;

const HEADER: usize = 11;
/// Enough for nearly every entry, so that it is read in one go.
const GUESS: usize = 128;
/// Farther back a chain cannot reach.
const MAX_BACK: u64 = (1 << 40) - 1;

/// Appends an entry; `back` is the distance to the one before.
pub(crate) fn put(out: &mut Vec<u8>, back: u64, samples: &[Sample]) {
    let start = out.len();
    let back = if back > MAX_BACK { 0 } else { back };
    out.extend(&back.to_le_bytes()[..5]);
    out.extend([0; 6]);
    block::encode(samples, out);
    let size = (out.len() - start - HEADER) as u16;
    out[start + 5..start + 7].copy_from_slice(&size.to_le_bytes());
    let crc = checksum(&out[start..start + 7], &out[start + HEADER..]);
    out[start + 7..start + HEADER].copy_from_slice(&crc.to_le_bytes());
}

/// The chain of a series' blocks, followed backwards.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) next: Option<NonZeroU64>,
    /// Blocks that end before it are not asked for.
    start_ms: i64,
    /// What was found, block by block, the newest first.
    found: Vec<Sample>,
    /// Where each block starts in it.
    starts: Vec<usize>,
}

impl Chain {
    /// From this block on; those that end before a moment are not asked for.
    pub(crate) const fn new(next: Option<NonZeroU64>, start_ms: i64) -> Self {
        Self { next, start_ms, found: Vec::new(), starts: Vec::new() }
    }

    /// From another block on, in the same room.
    pub(crate) fn again(&mut self, next: Option<NonZeroU64>) {
        self.next = next;
        self.found.clear();
        self.starts.clear();
    }

    /// The moment before which blocks are not asked for.
    pub(crate) const fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// Follows it down to an address; `None` if an entry cannot be read or is not what it should be.
    pub(crate) fn follow(&mut self, down_to: u64, fetch: &Fetch<'_>) -> Option<()> {
        while let Some(at) = self.next.filter(|at| at.get() >= down_to) {
            let before = self.found.len();
            let back = read(at.get(), fetch, &mut self.found)?;
            self.next = at.get().checked_sub(back).filter(|_| back > 0).and_then(NonZeroU64::new);
            if self.found[before..].last().is_none_or(|last| last.ts_ms < self.start_ms) {
                self.found.truncate(before);
                self.next = None;
            } else {
                self.starts.push(before);
            }
        }
        Some(())
    }

    /// Adds all samples found to a list, ascending.
    pub(crate) fn put(&self, all: &mut Vec<Sample>) {
        all.reserve(self.found.len());
        let mut end = self.found.len();
        for start in self.starts.iter().rev() {
            all.extend_from_slice(&self.found[*start..end]);
            end = *start;
        }
    }
}

/// Adds the samples of the entry at an address; the distance to the one before.
fn read(at: u64, fetch: &Fetch<'_>, samples: &mut Vec<Sample>) -> Option<u64> {
    let mut buffer = [0; GUESS];
    let got = fetch(at, &mut buffer)?;
    let head = buffer.get(..got)?.first_chunk::<HEADER>()?;
    let [p, q, r, s, t, low, high, crc @ ..] = *head;
    let back = u64::from_le_bytes([p, q, r, s, t, 0, 0, 0]);
    let size = usize::from(u16::from_le_bytes([low, high]));
    let mut long = Vec::new();
    let block = if HEADER + size <= got {
        &buffer[HEADER..HEADER + size]
    } else {
        long.resize(size, 0);
        (fetch(at + HEADER as u64, &mut long)? == size).then_some(long.as_slice())?
    };
    let whole = u32::from_le_bytes(crc) == checksum(&head[..7], block);
    (whole && block::decode(block, samples)?.is_empty()).then_some(back)
}

fn checksum(head: &[u8], block: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(block);
    crc.finalize()
}

/// Reads from bytes in memory that begin at this address.
pub(crate) fn from_memory(base: u64, bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> Option<usize> {
    move |at, buffer| {
        let rest = bytes.get(usize::try_from(at.checked_sub(base)?).ok()?..)?;
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_is_never_read() {
        let samples =
            |from: i64| (0..16).map(|at| Sample { ts_ms: from + at, value: (at * from) as f64 }).collect::<Vec<_>>();
        let mut stream = Vec::new();
        put(&mut stream, 0, &samples(0));
        let second = stream.len() as u64;
        put(&mut stream, second, &samples(100));
        let follow = |stream: &[u8]| {
            let next = NonZeroU64::new(START + second);
            let (mut chain, mut all) = (Chain::new(next, i64::MIN), Vec::new());
            chain.follow(START, &from_memory(START, stream))?;
            chain.put(&mut all);
            Some(all.len()).filter(|_| all.is_sorted_by_key(|sample| sample.ts_ms))
        };
        assert_eq!(follow(&stream), Some(32));
        for at in 0..stream.len() {
            let mut bent = stream.clone();
            bent[at] ^= 1;
            assert_eq!(follow(&bent), None, "byte {at}");
        }
        assert_eq!(follow(&stream[..stream.len() - 1]), None, "cut short");
    }
}
