//! One budget for everything that is being decompressed at one moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The global budget; cheap to clone.
#[derive(Clone, Debug)]
pub struct InflateBudget {
    left: Arc<AtomicUsize>,
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

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl InflateBudget {
    /// A budget of `total` bytes, of which one body may take `per_body`.
    pub fn new(total: usize, per_body: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(total)), per_body }
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
    }
}
