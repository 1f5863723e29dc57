//! Names of data files.
//!
//! ```text
//! part-<offset>-<hash>-<bytes>.parquet   XXH3 (128 bits) of the last <bytes> bytes, which follow the column chunks:
//!                                        page index and footer. The footer has the checksums of the column chunks.
//! part-<offset>-<hash>.parquet           XXH3 of the whole file, which has no other checksum: an earlier version's
//! ```
//!
//! A name comes from the content, so a retry overwrites the file of the failed attempt, and a reader can check the
//! footer before it relies on it. Files that other programs wrote have other names and are read unchecked.

use xxhash_rust::xxh3::xxh3_128;

use crate::format::data_file::DataFile;

/// Digits of the offset in a name.
const OFFSET_DIGITS: usize = 20;
/// Digits of the hash in a name.
const HASH_DIGITS: usize = 32;

/// The hash in a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameHash {
    /// Of page index and footer, with their length in bytes.
    Tail {
        /// XXH3 of the bytes.
        hash: u128,
        /// Number of bytes at the end of the file.
        bytes: u64,
    },
    /// Of the whole file.
    Whole(u128),
}

/// Returns the name of a file whose batch ends at this bus offset.
pub(crate) fn data_file_name(file: &DataFile, offset: u64) -> String {
    let tail = &file.bytes[file.tail_start..];
    format!("part-{offset:020}-{:032x}-{}.parquet", xxh3_128(tail), tail.len())
}

/// Returns the hash in the name of a path's last part, or `None` if another program named the file.
pub(crate) fn name_hash(path: &str) -> Option<NameHash> {
    let name = path.rsplit('/').next()?.strip_prefix("part-")?.strip_suffix(".parquet")?;
    let mut parts = name.split('-');
    let (offset, hash, bytes) = (parts.next()?, parts.next()?, parts.next());
    let is_decimal = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    if parts.next().is_some() || offset.len() != OFFSET_DIGITS || !is_decimal(offset) || !is_hash {
        return None;
    }
    let hash = u128::from_str_radix(hash, 16).ok()?;
    match bytes {
        Some(bytes) => Some(NameHash::Tail { hash, bytes: Some(bytes).filter(|text| is_decimal(text))?.parse().ok()? }),
        None => Some(NameHash::Whole(hash)),
    }
}

/// Returns the bus offset in a file's name; other programs number their files in the same place.
pub(crate) fn name_offset(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.strip_prefix("part-")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use wardroom_domain::TenantId;

    use super::*;

    #[test]
    fn reads_the_hash_of_its_own_names_only() {
        let file = DataFile {
            tenant: TenantId::main(),
            day: 0,
            bytes: b"PAR1....tail".to_vec().into(),
            tail_start: 8,
            stats: serde_json::Value::Null,
        };
        let name = format!("tenant=main/day=1970-01-01/{}", data_file_name(&file, 7));
        assert_eq!(name_hash(&name), Some(NameHash::Tail { hash: xxh3_128(b"tail"), bytes: 4 }));
        assert_eq!(name_offset(&name), Some(7));
        let before = format!("part-{:020}-{:032x}.parquet", 9, 255);
        assert_eq!((name_hash(&before), name_offset(&before)), (Some(NameHash::Whole(255)), Some(9)));
        for other in [
            "part-00001-9f5b2c0e-1f0a-4b53-9d8e-0c3a5d1f2b3c-c000.zstd.parquet",
            "part-00000000000000000007-zz.parquet",
            "part-7-000000000000000000000000000000ff.parquet",
            "part-00000000000000000007-000000000000000000000000000000ff--1.parquet",
            "00000000000000000010.checkpoint.parquet",
        ] {
            assert_eq!(name_hash(other), None, "{other}");
        }
        assert_eq!(name_offset("part-00001-9f5b2c0e-1f0a-4b53-9d8e-0c3a5d1f2b3c-c000.zstd.parquet"), Some(1));
    }
}
