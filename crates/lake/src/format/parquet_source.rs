//! Byte source of the Parquet reader: compares what it reads with the file's checksums.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::parquet::errors::{ParquetError, Result};
use deltalake_core::parquet::file::reader::{ChunkReader, Length};
use xxhash_rust::xxh3::Xxh3;

use crate::damaged_files::{DamagedFile, DamagedFiles};
use crate::error::Error;
use crate::format::checksums::{BLOCK_BYTES, FileChecksums};
use crate::format::file_name::{NameHash, name_hash};

/// Bytes read at a time to hash a whole file.
const HASH_READ_BYTES: usize = 1 << 20;

/// A Parquet file on a local disk, or in memory as a whole.
#[derive(Clone)]
pub(crate) struct ParquetSource(Arc<SourceFile>);

/// Where the bytes of a file are.
pub(crate) enum SourceBytes {
    File(File),
    Memory(Bytes),
}

struct SourceFile {
    bytes: SourceBytes,
    length: u64,
    /// Path below the lake's root, for errors.
    path: String,
    name_hash: Option<NameHash>,
    /// Checksums, and the bytes that follow the column chunks; `None` if the file has no checksums.
    checks: Option<(FileChecksums, Bytes)>,
    damaged_files: DamagedFiles,
}

impl ParquetSource {
    /// Opens a file of a table. `path` is below the lake's root.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if its footer is damaged.
    pub(crate) fn open(
        bytes: SourceBytes,
        path: String,
        damaged_files: &DamagedFiles,
    ) -> std::result::Result<Self, Error> {
        let length = match &bytes {
            SourceBytes::File(file) => file.metadata()?.len(),
            SourceBytes::Memory(bytes) => bytes.len() as u64,
        };
        let (name_hash, damaged_files) = (name_hash(&path), damaged_files.clone());
        let mut file = SourceFile { bytes, length, path, name_hash, checks: None, damaged_files };
        if let Some(NameHash::Tail { hash, bytes }) = name_hash {
            let checks = match length.checked_sub(bytes) {
                Some(start) => {
                    let tail = file.read(start..length)?;
                    FileChecksums::read(start, &tail, hash).map(|checksums| (checksums, tail))
                }
                None => Err(format!("it has {length} bytes, and its name says that the footer alone has {bytes}")),
            };
            file.checks = Some(checks.map_err(|detail| Error::DamagedFile(file.damaged(detail)))?);
        }
        Ok(Self(Arc::new(file)))
    }

    /// Compares the whole content with the hash in the name, if the file has no other checksum; other files are
    /// compared while they are read. A file that is rewritten must be checked first: its successor gets new checksums.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged.
    pub(crate) fn verify_before_rewrite(&self) -> std::result::Result<(), Error> {
        let Some(NameHash::Whole(expected)) = self.0.name_hash else { return Ok(()) };
        let (mut hash, mut position) = (Xxh3::new(), 0);
        while position < self.0.length {
            let end = self.0.length.min(position + HASH_READ_BYTES as u64);
            hash.update(&self.0.read(position..end)?);
            position = end;
        }
        if hash.digest128() != expected {
            let detail = "its content does not match the hash in its name".to_owned();
            return Err(Error::DamagedFile(self.0.damaged(detail)));
        }
        Ok(())
    }
}

impl SourceFile {
    /// Remembers that the file is damaged, and returns the error.
    fn damaged(&self, detail: String) -> DamagedFile {
        let file = DamagedFile { path: self.path.clone(), detail };
        self.damaged_files.record(&file);
        file
    }

    /// Reads a range without a check.
    fn read(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        let short = || IoError::new(ErrorKind::UnexpectedEof, format!("{} ends before {}", self.path, range.end));
        if range.end > self.length {
            return Err(short());
        }
        let position = |offset: u64| usize::try_from(offset).map_err(|_| short());
        let (start, end) = (position(range.start)?, position(range.end)?);
        match &self.bytes {
            SourceBytes::File(file) => {
                let mut bytes = vec![0; end - start];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes.into())
            }
            SourceBytes::Memory(bytes) => Ok(bytes.slice(start..end)),
        }
    }

    /// Reads a range and compares it with the checksums.
    fn read_verified(&self, range: Range<u64>) -> Result<Bytes> {
        let Some((checksums, tail)) = &self.checks else { return Ok(self.read(range)?) };
        let position = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        if range.start >= checksums.tail_start() && range.end <= self.length {
            let start = checksums.tail_start();
            return Ok(tail.slice(position(range.start - start)..position(range.end - start)));
        }
        let wide = checksums.widen(&range, self.length);
        let bytes = self.read(wide.clone())?;
        let damaged = |detail| ParquetError::External(Box::new(self.damaged(detail)));
        checksums.verify(wide.start, &bytes).map_err(damaged)?;
        Ok(bytes.slice(position(range.start - wide.start)..position(range.end - wide.start)))
    }
}

impl Length for ParquetSource {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for ParquetSource {
    type T = SourceReader;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(SourceReader { file: Arc::clone(&self.0), position: start, buffer: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.0.read_verified(start..start.saturating_add(length as u64))
    }
}

/// Reads a file from a position on, block by block.
pub(crate) struct SourceReader {
    file: Arc<SourceFile>,
    position: u64,
    buffer: Bytes,
}

impl Read for SourceReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.buffer.is_empty() {
            let end = self.file.length.min(self.position.saturating_add(BLOCK_BYTES));
            if end <= self.position {
                return Ok(0);
            }
            // The rest of the block that the position is in: a header is short.
            let wide = self.file.checks.as_ref().map(|(checksums, _)| {
                checksums.widen(&(self.position..self.position + 1), self.file.length).end.min(end)
            });
            self.buffer = self.file.read_verified(self.position..wide.unwrap_or(end))?;
        }
        let count = into.len().min(self.buffer.len());
        into[..count].copy_from_slice(&self.buffer.split_to(count));
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use deltalake_core::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use wardroom_domain::{Sample, TenantId};
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;
    use crate::format::data_file::{DataFile, FilePurpose};
    use crate::format::file_name::data_file_name;
    use crate::format::sample_file::SampleFileWriter;
    use crate::format::sorted_run::SortedRun;

    fn sample_file() -> DataFile {
        let mut file = SampleFileWriter::new(TenantId::main(), 0, FilePurpose::ShortLived).unwrap();
        for series in 0..40_i64 {
            let value = |step: i64| (step * 7919 % 1009) as f64 / 8.0;
            let run: Vec<_> = (0..1000).map(|step| (Sample { ts_ms: step * 1000, value: value(step) }, 7)).collect();
            file.push(series, &run).unwrap();
        }
        file.finish().unwrap()
    }

    fn open(bytes: Vec<u8>, path: String, damaged_files: &DamagedFiles) -> std::result::Result<ParquetSource, Error> {
        ParquetSource::open(SourceBytes::Memory(bytes.into()), path, damaged_files)
    }

    /// Reads all rows, or those of one series by the page index.
    fn read(source: ParquetSource, series: Option<i64>) -> std::result::Result<usize, Error> {
        let selected = series.map(|series| [series]);
        let mut run = SortedRun::open(source, selected.as_ref().map(<[i64; 1]>::as_slice))?;
        let mut rows = Vec::new();
        while let Some(next) = run.next_series()? {
            run.take_series(next, &mut rows)?;
        }
        Ok(rows.len())
    }

    #[test]
    fn reads_what_was_written_or_names_the_damaged_file() {
        let file = sample_file();
        let path = format!("silver/samples/{}", data_file_name(&file, 7));
        let damaged_files = DamagedFiles::default();
        let intact = open(file.bytes.to_vec(), path.clone(), &damaged_files).unwrap();
        assert_eq!(read(intact.clone(), None).unwrap(), 40_000);
        assert!(read(intact, Some(3)).unwrap() >= 1000);
        assert_eq!(damaged_files.list(), []);
        for position in (4..file.bytes.len() - 8).step_by(61) {
            let mut bytes = file.bytes.to_vec();
            bytes[position] ^= 0x20;
            let damaged_files = DamagedFiles::default();
            let result = open(bytes, path.clone(), &damaged_files).and_then(|source| read(source, None));
            let error = result.expect_err("a flipped bit in any place").to_string();
            assert!(error.contains(&path) && error.contains("lake verify"), "{error}");
            assert!(error.contains("column ") || error.contains("footer"), "{error}");
            assert_eq!(damaged_files.list().len(), 1);
        }
    }

    #[test]
    fn reads_files_of_other_programs_and_earlier_versions() {
        let file = sample_file();
        let damaged_files = DamagedFiles::default();
        let earlier = format!("silver/samples/part-{:020}-{:032x}.parquet", 7, xxh3_128(&file.bytes));
        for path in ["silver/samples/part-00001-9f5b2c0e-c000.zstd.parquet", &earlier] {
            let source = open(file.bytes.to_vec(), path.to_owned(), &damaged_files).unwrap();
            source.verify_before_rewrite().unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(source).unwrap().build().unwrap();
            assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 40_000);
        }
        // A file of an earlier version is not rewritten once it is damaged.
        let mut bytes = file.bytes.to_vec();
        bytes[5000] ^= 1;
        let source = open(bytes, earlier.clone(), &damaged_files).unwrap();
        assert!(matches!(source.verify_before_rewrite(), Err(Error::DamagedFile(found)) if found.path == earlier));
    }
}
