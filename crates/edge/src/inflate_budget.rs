//! One memory budget for all request bodies that are being decompressed at the same time.

use std::io::Read;

use wardroom_domain::Identity;

use crate::budget::{Budget, BudgetPermit, Exhausted};

/// Size of a buffer before it grows, in bytes. It grows by doubling.
const INITIAL_BUFFER_BYTES: usize = 64 << 10;

/// The global budget; cheap to clone.
#[derive(Clone, Debug)]
pub struct InflateBudget {
    budget: Budget,
    max_body_bytes: usize,
}

/// Why a body cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// The body exceeds the limit of one body: 413.
    #[error("body decompresses to more than {limit} bytes; send smaller batches or raise edge.max-inflated-bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Concurrent requests use the whole budget, or those of this sender its share: 503.
    #[error("the decompression budget is exhausted by concurrent requests; retry")]
    Exhausted,
    /// The body is not valid in its encoding: 400.
    #[error("body is not complete gzip; it may be truncated")]
    Corrupt,
}

impl From<Exhausted> for InflateError {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

impl InflateBudget {
    /// Creates a budget of `total` bytes, of which one body may use `max_body_bytes`.
    pub fn new(total: usize, max_body_bytes: usize) -> Self {
        Self { budget: Budget::new(total), max_body_bytes }
    }

    /// Returns the sender's share of the same budget.
    #[must_use]
    pub fn of_sender(&self, identity: &Identity) -> Self {
        Self { budget: self.budget.of_sender(identity), max_body_bytes: self.max_body_bytes }
    }

    /// Returns the same budget with a lower limit for one body.
    #[must_use]
    pub fn with_body_limit(&self, max_body_bytes: usize) -> Self {
        Self { budget: self.budget.clone(), max_body_bytes: max_body_bytes.min(self.max_body_bytes) }
    }

    /// Checks that one body may have this size; reserves nothing.
    ///
    /// # Errors
    /// Returns an error if one body may not use that much.
    pub fn check_size(&self, bytes: usize) -> Result<(), InflateError> {
        if bytes > self.max_body_bytes { Err(InflateError::TooLarge { limit: self.max_body_bytes }) } else { Ok(()) }
    }

    /// Reserves bytes of the budget before a body is decompressed.
    ///
    /// # Errors
    /// Returns an error if one body may not use that much or the budget is exhausted.
    pub fn reserve(&self, bytes: usize) -> Result<BudgetPermit, InflateError> {
        self.check_size(bytes)?;
        let mut permit = self.budget.permit();
        permit.grow(bytes)?;
        Ok(permit)
    }

    /// Allocates a zeroed buffer of `len` bytes for a body of known size.
    ///
    /// # Errors
    /// Returns an error if one body may not use that much or the budget is exhausted.
    pub fn allocate(&self, len: usize) -> Result<InflatedBody, InflateError> {
        let permit = self.reserve(len)?;
        Ok(InflatedBody { bytes: vec![0; len], len, permit, max_bytes: self.max_body_bytes })
    }

    /// Creates an empty buffer that grows as it is written.
    ///
    /// # Errors
    /// Returns an error if the budget is exhausted.
    pub fn growable(&self) -> Result<InflatedBody, InflateError> {
        let mut body = self.allocate(INITIAL_BUFFER_BYTES.min(self.max_body_bytes))?;
        body.len = 0;
        Ok(body)
    }

    /// Decompresses a gzip body. The reservation grows with the output, because the size stated in gzip is not
    /// reliable.
    ///
    /// # Errors
    /// Returns an error if the output is too large, the budget is exhausted or the body is not valid gzip.
    pub fn gunzip(&self, body: &[u8]) -> Result<InflatedBody, InflateError> {
        let mut plain = self.growable()?;
        let mut reader = flate2::read::MultiGzDecoder::new(body);
        loop {
            if plain.len == plain.bytes.len() {
                if plain.len == plain.max_bytes {
                    // The output is exactly at the limit; one more byte is too large.
                    let extra_bytes = reader.read(&mut [0]).map_err(|_| InflateError::Corrupt)?;
                    return if extra_bytes == 0 {
                        Ok(plain)
                    } else {
                        Err(InflateError::TooLarge { limit: plain.max_bytes })
                    };
                }
                plain.grow(plain.len + 1)?;
            }
            let read = reader.read(&mut plain.bytes[plain.len..]).map_err(|_| InflateError::Corrupt)?;
            if read == 0 {
                return Ok(plain);
            }
            plain.len += read;
        }
    }
}

/// A decompressed body with its reservation of the budget.
#[derive(Debug)]
pub struct InflatedBody {
    /// Always as long as the reservation.
    bytes: Vec<u8>,
    /// Bytes written.
    len: usize,
    permit: BudgetPermit,
    max_bytes: usize,
}

impl InflatedBody {
    /// Returns the content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Returns the content, mutable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Appends bytes and grows the reservation if needed.
    ///
    /// # Errors
    /// Returns an error if the body becomes too large or the budget is exhausted.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), InflateError> {
        let end = self.len + bytes.len();
        if end > self.bytes.len() {
            self.grow(end)?;
        }
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Grows the reservation and the buffer to at least `needed` bytes.
    fn grow(&mut self, needed: usize) -> Result<(), InflateError> {
        let limit = self.max_bytes;
        if needed > limit {
            return Err(InflateError::TooLarge { limit });
        }
        let size = needed.max(self.bytes.len() * 2).max(INITIAL_BUFFER_BYTES).min(limit);
        self.permit.grow(size - self.bytes.len())?;
        self.bytes.resize(size, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_releases_its_bytes() {
        let budget = InflateBudget::new(100, 80);
        assert_eq!(budget.reserve(81).unwrap_err(), InflateError::TooLarge { limit: 80 });
        let first = budget.reserve(80).unwrap();
        assert_eq!(budget.reserve(30).unwrap_err(), InflateError::Exhausted);
        drop(first);
        assert!(budget.reserve(30).is_ok());
        let body = budget.allocate(70).unwrap();
        assert_eq!(budget.allocate(40).unwrap_err(), InflateError::Exhausted);
        drop(body);
        assert_eq!(budget.allocate(10).unwrap().bytes(), [0; 10]);
    }

    #[test]
    fn gzip_output_reserves_what_it_needs_up_to_the_limit() {
        let gzip = |plain: &[u8]| {
            let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut compressed, plain).unwrap();
            compressed.finish().unwrap()
        };
        let budget = InflateBudget::new(1 << 20, 300_000);
        let plain: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
        let compressed = gzip(&plain);
        assert_eq!(budget.gunzip(&compressed).unwrap().bytes(), plain);
        assert_eq!(budget.gunzip(&compressed[..compressed.len() / 2]).unwrap_err(), InflateError::Corrupt);
        assert_eq!(budget.gunzip(&gzip(&vec![0; 300_001])).unwrap_err(), InflateError::TooLarge { limit: 300_000 });
        let small = gzip(b"small");
        let bodies: Vec<InflatedBody> = (0..16).map_while(|_| budget.gunzip(&small).ok()).collect();
        assert_eq!(bodies.len(), 16, "a small body reserves only the initial buffer");
        assert_eq!(budget.gunzip(&small).unwrap_err(), InflateError::Exhausted);
        drop(bodies);
        let mut body = budget.growable().unwrap();
        (0..10).for_each(|_| body.append(&plain[..30_000]).unwrap());
        assert_eq!(body.append(&[1]).unwrap_err(), InflateError::TooLarge { limit: 300_000 });
    }
}
