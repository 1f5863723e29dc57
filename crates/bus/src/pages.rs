//! What of the log stays in the page cache: its end, which its readers follow.
//!
//! Problem: the log is written once and then read by nobody for as long as all goes well, and yet its pages push those out that
//! others read. On a virtual machine it is worse: a page that the guest has not used lately is the host's, and getting it back costs
//! several times what is copied into it. Model: a stretch that is on the disk and well behind the end is given up, so that the
//! next one finds the same pages again. Whoever has to read it after all reads the disk.

use std::fs::File;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// What stays: more than followers lag behind, in bytes.
const KEPT: u64 = 32 << 20;
/// What is given up at once, in bytes.
const STEP: u64 = 4 << 20;

/// The pages of the newest segments.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Before this byte of the open segment none is kept.
    released: u64,
    /// The segment before, of which some are.
    before: Option<File>,
}

impl Pages {
    /// So much of the open segment is on the disk.
    pub(crate) fn release(&mut self, segment: &File, size: u64) {
        let until = size.saturating_sub(KEPT);
        if until < self.released + STEP {
            return;
        }
        advise(segment, self.released, until - self.released);
        self.released = until;
        if let Some(before) = self.before.take() {
            advise(&before, 0, 0);
        }
    }

    /// A new segment follows this one.
    pub(crate) fn roll(&mut self, before: File) {
        (self.released, self.before) = (0, Some(before));
    }
}

/// From a byte on so many, or with 0 all.
fn advise(segment: &File, from: u64, bytes: u64) {
    let [from, bytes] = [from, bytes].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    if let Err(error) = posix_fadvise(segment, from, bytes, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        tracing::debug!(%error, "the log stays in the page cache");
    }
}
