//! Keyed hashes of encoded label sets, used to look series up without decoding their labels.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// Secret of this process: a sender cannot construct two label sets with the same key.
static HASH_SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("series"));

/// An encoding of labels, or of the parts from which a series key is combined.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LabelEncoding {
    /// As [`wardroom_domain::Labels`] stores them.
    Canonical,
    /// A span of remote_write 1.0 label messages.
    RemoteWrite1,
    /// The keys of the symbols of a remote_write 2.0 series, in order.
    RemoteWrite2,
    /// One symbol of remote_write 2.0.
    Symbol,
    /// A part of an OTLP request: resource, metric or attributes.
    OtlpPart,
    /// The keys of such parts, and which series of the data point.
    Otlp,
}

/// Returns the keyed hash of encoded labels. Each encoding has its own seed, so equal bytes in different encodings have
/// different keys.
pub(crate) fn series_key(bytes: &[u8], encoding: LabelEncoding) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(bytes, HASH_SEED.wrapping_add(encoding as u64))
}
