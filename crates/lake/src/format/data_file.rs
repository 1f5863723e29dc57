//! A finished Parquet file, and the settings that all files share.

use bytes::Bytes;
use deltalake_core::parquet::basic::{Compression, ZstdLevel};
use deltalake_core::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use wardroom_domain::TenantId;

use crate::error::Error;

/// Length of a day, in ms.
pub(crate) const DAY_MS: i64 = 86_400_000;

/// Returns the day of a time, in days since the epoch.
pub(crate) const fn day_of(ts_ms: i64) -> i64 {
    ts_ms.div_euclid(DAY_MS)
}

/// A finished file and its statistics for the table's log.
#[derive(Clone, Debug)]
pub(crate) struct DataFile {
    /// Tenant of the rows.
    pub(crate) tenant: TenantId,
    /// Day of the rows, in days since the epoch.
    pub(crate) day: i64,
    /// The Parquet file.
    pub(crate) bytes: Bytes,
    /// Where page index and footer start, after the last column chunk.
    pub(crate) tail_start: usize,
    /// Statistics as the Delta protocol defines them.
    pub(crate) stats: serde_json::Value,
}

/// Expected lifetime of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilePurpose {
    /// Will be merged soon: encoded for write speed.
    ShortLived,
    /// Will not be merged again: encoded for size.
    LongLived,
}

impl FilePurpose {
    /// zstd compression level.
    pub(crate) const fn zstd_level(self) -> i32 {
        if matches!(self, Self::ShortLived) { 1 } else { 3 }
    }
}

/// Returns the writer properties that all files share.
pub(crate) fn writer_properties(purpose: FilePurpose) -> Result<WriterPropertiesBuilder, Error> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(purpose.zstd_level())?))
        .set_created_by(concat!("wardroom ", env!("CARGO_PKG_VERSION")).to_owned()))
}
