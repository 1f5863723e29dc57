//! One budget for everything that is being decompressed at one moment, and the buffers for it.

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
}

/// Room for one decompressed body, its share of the budget included. Fresh memory would be zeroed by the
/// system page by page for every request, so buffers are handed on.
#[derive(Debug)]
pub struct Inflated {
    bytes: Vec<u8>,
    len: usize,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Given back with the buffer.
    _share: Share,
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
        self.left
            .try_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes))
            .map(|_| Share { left: Arc::clone(&self.left), bytes })
            .map_err(|_| InflateError::Exhausted)
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
        Ok(Inflated { bytes, len, spare: Arc::clone(&self.spare), _share: share })
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
}
