//! Byte source of the Parquet reader.

use std::fs::File;
use std::io::Read;

use bytes::Bytes;
use deltalake_core::parquet::errors::Result;
use deltalake_core::parquet::file::reader::{ChunkReader, Length};

/// A Parquet file on a local disk, or in memory as a whole.
pub(crate) enum ParquetSource {
    File(File),
    Bytes(Bytes),
}

impl Length for ParquetSource {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => Length::len(file),
            Self::Bytes(bytes) => Length::len(bytes),
        }
    }
}

impl ChunkReader for ParquetSource {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(match self {
            Self::File(file) => Box::new(file.get_read(start)?),
            Self::Bytes(bytes) => Box::new(bytes.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            Self::Bytes(bytes) => bytes.get_bytes(start, length),
        }
    }
}
