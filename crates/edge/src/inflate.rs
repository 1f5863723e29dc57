//! One budget for everything that is being decompressed at one moment, and the buffers for it.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept for the next request, and the size up to which one is worth keeping.
const SPARE: usize = 8;
const SPARE_BYTES: usize = 2 << 20;

/// The global budget; cheap to clone.
#[derive(Clone, Debug)]
pub struct InflateBudget {
    left: Arc<AtomicUsize>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    per_body: usize,
}

/// Why a body may not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It alone is over the limit: 413.
    #[error("body decompresses to more than {limit} bytes; send smaller batches or raise edge.max-inflated-bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// All bodies together are over the budget: 503.
    #[error("too much is being decompressed at this moment; try again")]
    Exhausted,
    /// It is not what its encoding says: 400.
    #[error("the body is not whole gzip; it may have been cut short")]
    Broken,
}

/// A buffer starts with so much room and grows by doubling.
const FIRST_ROOM: usize = 64 << 10;

/// Room for one decompressed body, its share of the budget included. Fresh memory would be zeroed by the
/// system page by page for every request, so buffers are handed on.
#[derive(Debug)]
pub struct Inflated {
    bytes: Vec<u8>,
    len: usize,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Given back with the buffer.
    share: Share,
    per_body: usize,
}

impl Inflated {
    /// The room, to write to.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What was written, to change it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Writes at the end; asks the budget for more where the room does not suffice.
    ///
    /// # Errors
    /// See [`InflateError`].
    pub fn put(&mut self, more: &[u8]) -> Result<(), InflateError> {
        let end = self.len + more.len();
        if end > self.bytes.len() || end > self.share.bytes {
            self.grow(end)?;
        }
        self.bytes[self.len..end].copy_from_slice(more);
        self.len = end;
        Ok(())
    }

    /// Takes a larger share, and the memory for it.
    fn grow(&mut self, need: usize) -> Result<(), InflateError> {
        let limit = self.per_body;
        if need > limit {
            return Err(InflateError::TooLarge { limit });
        }
        let wanted = need.max(self.share.bytes * 2).max(FIRST_ROOM).min(limit);
        self.share.grow(wanted - self.share.bytes)?;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        Ok(())
    }
}

impl Drop for Inflated {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE && self.bytes.len() <= SPARE_BYTES {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl InflateBudget {
    /// A budget of `total` bytes, of which one body may take `per_body`.
    pub fn new(total: usize, per_body: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(total)), spare: Arc::default(), per_body }
    }

    /// The most one body may take.
    pub const fn per_body(&self) -> usize {
        self.per_body
    }

    /// Takes a share before anything is decompressed.
    ///
    /// # Errors
    /// See [`InflateError`].
    pub fn take(&self, bytes: usize) -> Result<Share, InflateError> {
        if bytes > self.per_body {
            return Err(InflateError::TooLarge { limit: self.per_body });
        }
        let mut share = Share { left: Arc::clone(&self.left), bytes: 0 };
        share.grow(bytes)?;
        Ok(share)
    }
}

impl Share {
    fn grow(&mut self, more: usize) -> Result<(), InflateError> {
        self.left
            .try_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(more))
            .map_err(|_| InflateError::Exhausted)?;
        self.bytes += more;
        Ok(())
    }
}

impl InflateBudget {
    /// Room for a body of known size, whose content is not defined until written.
    ///
    /// # Errors
    /// See [`InflateError`].
    pub fn room(&self, len: usize) -> Result<Inflated, InflateError> {
        let share = self.take(len)?;
        let mut bytes = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Ok(Inflated { bytes, len, spare: Arc::clone(&self.spare), share, per_body: self.per_body })
    }

    /// Room that begins empty and grows as it is written to.
    ///
    /// # Errors
    /// See [`InflateError`].
    pub fn growing(&self) -> Result<Inflated, InflateError> {
        let mut room = self.room(FIRST_ROOM.min(self.per_body))?;
        room.len = 0;
        Ok(room)
    }

    /// A gzip body, decompressed. Gzip does not say truthfully how large it gets, so its share grows with it.
    ///
    /// # Errors
    /// See [`InflateError`].
    pub fn gunzip(&self, body: &[u8]) -> Result<Inflated, InflateError> {
        let mut plain = self.growing()?;
        let mut reader = flate2::read::MultiGzDecoder::new(body);
        loop {
            if plain.len == plain.share.bytes {
                if plain.len == plain.per_body {
                    // Exactly as large as it may be, or larger.
                    let more = reader.read(&mut [0]).map_err(|_| InflateError::Broken)?;
                    return if more == 0 { Ok(plain) } else { Err(InflateError::TooLarge { limit: plain.per_body }) };
                }
                plain.grow(plain.len + 1)?;
            }
            let end = plain.share.bytes;
            let read = reader.read(&mut plain.bytes[plain.len..end]).map_err(|_| InflateError::Broken)?;
            if read == 0 {
                return Ok(plain);
            }
            plain.len += read;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back() {
        let budget = InflateBudget::new(100, 80);
        assert_eq!(budget.take(81).unwrap_err(), InflateError::TooLarge { limit: 80 });
        let first = budget.take(80).unwrap();
        assert_eq!(budget.take(30).unwrap_err(), InflateError::Exhausted);
        drop(first);
        assert!(budget.take(30).is_ok());
        let mut room = budget.room(70).unwrap();
        room.room()[69] = 7;
        assert_eq!(budget.room(40).unwrap_err(), InflateError::Exhausted);
        drop(room);
        assert_eq!(budget.room(10).unwrap().bytes().len(), 10);
    }

    #[test]
    fn gzip_takes_what_it_needs_and_no_more_than_it_may() {
        let pack = |plain: &[u8]| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packed, plain).unwrap();
            packed.finish().unwrap()
        };
        let budget = InflateBudget::new(1 << 20, 300_000);
        let plain: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let packed = pack(&plain);
        assert_eq!(budget.gunzip(&packed).unwrap().bytes(), plain);
        assert_eq!(budget.gunzip(&packed[..packed.len() / 2]).unwrap_err(), InflateError::Broken);
        assert_eq!(budget.gunzip(&pack(&vec![0; 300_001])).unwrap_err(), InflateError::TooLarge { limit: 300_000 });
        let small = pack(b"small");
        let held: Vec<Inflated> = (0..16).map_while(|_| budget.gunzip(&small).ok()).collect();
        assert_eq!(held.len(), 16, "a small body takes a small share");
        assert_eq!(budget.gunzip(&small).unwrap_err(), InflateError::Exhausted);
        drop(held);
        let mut room = budget.growing().unwrap();
        (0..10).for_each(|_| room.put(&plain[..30_000]).unwrap());
        assert_eq!(room.put(&[1]).unwrap_err(), InflateError::TooLarge { limit: 300_000 });
    }
}
