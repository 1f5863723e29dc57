//! Checksums of the column chunks of a data file (ADR 041).
//!
//! Problem: the Parquet library writes no page checksums, and a flipped bit in a page often decodes to another value.
//! Model: the footer has, under [`CHECKSUMS_KEY`], a CRC-32 of every [`BLOCK_BYTES`] of every column chunk, and the
//! file's name has a hash of page index and footer ([`crate::format::file_name`]). A reader widens each range to whole
//! blocks and compares them before it uses a byte. Guarantee: what is read is what was written, or an error names the
//! file, the row group and the column; a page of a large chunk costs a block more, not the chunk.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::parquet::arrow::ArrowWriter;
use deltalake_core::parquet::file::metadata::{
    FooterTail, KeyValue, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use deltalake_core::parquet::file::writer::SerializedFileWriter;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Error;

/// Key of the checksums in the footer's key-value metadata.
///
/// The value is `crc32/16384:` and then, for each column chunk in the order of row groups and columns, eight
/// hexadecimal digits for each block of the chunk as it is in the file, with `,` between columns and `;` between row
/// groups.
pub(crate) const CHECKSUMS_KEY: &str = "wardroom.checksums";
/// Bytes of a column chunk that one checksum covers; the last block of a chunk is shorter.
pub(crate) const BLOCK_BYTES: u64 = 16 << 10;
/// Length of the footer's last part: the length of the metadata and the magic bytes.
const FOOTER_END_BYTES: usize = 8;
/// Digits of a checksum.
const CHECKSUM_DIGITS: usize = 8;

/// A complete file, and where page index and footer start.
pub(crate) struct FinishedFile {
    pub(crate) bytes: Bytes,
    pub(crate) tail_start: usize,
}

/// Adds the checksums and closes a file.
pub(crate) fn finish_file(mut writer: SerializedFileWriter<Vec<u8>>) -> Result<FinishedFile, Error> {
    writer.flush()?;
    let tail_start = writer.inner().len();
    let checksums = chunk_checksums(writer.inner(), writer.flushed_row_groups())?;
    writer.append_key_value_metadata(checksums);
    Ok(FinishedFile { bytes: writer.into_inner()?.into(), tail_start })
}

/// Adds the checksums and closes a file of the general writer.
pub(crate) fn finish_arrow_file(mut writer: ArrowWriter<Vec<u8>>) -> Result<FinishedFile, Error> {
    writer.flush()?;
    writer.sync()?;
    let tail_start = writer.inner().len();
    let checksums = chunk_checksums(writer.inner(), writer.flushed_row_groups())?;
    writer.append_key_value_metadata(checksums);
    Ok(FinishedFile { bytes: writer.into_inner()?.into(), tail_start })
}

/// Returns the checksums of the column chunks that were written so far.
fn chunk_checksums(written: &[u8], row_groups: &[RowGroupMetaData]) -> Result<KeyValue, Error> {
    let mut text = format!("crc32/{BLOCK_BYTES}:");
    for (index, group) in row_groups.iter().enumerate() {
        text.push_str(if index > 0 { ";" } else { "" });
        for (index, column) in group.columns().iter().enumerate() {
            text.push_str(if index > 0 { "," } else { "" });
            let (start, length) = column.byte_range();
            let chunk = usize::try_from(start).ok().zip(usize::try_from(start + length).ok());
            let chunk = chunk.and_then(|(start, end)| written.get(start..end));
            let chunk = chunk.ok_or_else(|| Error::Damaged("a column chunk lies outside of its file".into()))?;
            for block in chunk.chunks(BLOCK_BYTES as usize) {
                text.push_str(&format!("{:08x}", crc32fast::hash(block)));
            }
        }
    }
    Ok(KeyValue::new(CHECKSUMS_KEY.to_owned(), text))
}

/// A column chunk, and its first checksum in [`FileChecksums::blocks`].
#[derive(Debug)]
struct Chunk {
    range: Range<u64>,
    first_block: usize,
    row_group: usize,
    column: usize,
}

/// The checksums of a file.
#[derive(Debug)]
pub(crate) struct FileChecksums {
    tail_start: u64,
    tail_hash: u128,
    /// By position in the file.
    chunks: Vec<Chunk>,
    /// Checksums of the blocks of all chunks, in the order of [`chunk_checksums`].
    blocks: Vec<u32>,
    metadata: Arc<ParquetMetaData>,
}

impl FileChecksums {
    /// Reads the checksums from page index and footer, whose hash is in the file's name.
    ///
    /// # Errors
    /// Returns what is damaged.
    pub(crate) fn read(tail_start: u64, tail: &[u8], tail_hash: u128) -> Result<Self, String> {
        if xxh3_128(tail) != tail_hash {
            return Err(footer_mismatch());
        }
        let metadata = parse_metadata(tail).map_err(|error| format!("the footer cannot be read: {error}"))?;
        let entries = metadata.file_metadata().key_value_metadata();
        let entry = entries.and_then(|entries| entries.iter().find(|entry| entry.key == CHECKSUMS_KEY));
        let text = entry.and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        let invalid = || format!("the footer has no valid entry {CHECKSUMS_KEY}");
        let groups = text.strip_prefix(&format!("crc32/{BLOCK_BYTES}:")).ok_or_else(invalid)?;
        let mut found = groups.split([',', ';']);
        let (mut chunks, mut blocks) = (Vec::new(), Vec::new());
        for (row_group, group) in metadata.row_groups().iter().enumerate() {
            for (column, chunk) in group.columns().iter().enumerate() {
                let (start, length) = chunk.byte_range();
                let digits = found.next().ok_or_else(invalid)?.as_bytes();
                let first_block = blocks.len();
                for digits in digits.chunks(CHECKSUM_DIGITS) {
                    let digits = std::str::from_utf8(digits).ok();
                    let checksum = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                    blocks.push(checksum.ok_or_else(invalid)?);
                }
                if (blocks.len() - first_block) as u64 != length.div_ceil(BLOCK_BYTES) || start + length > tail_start {
                    return Err(invalid());
                }
                chunks.push(Chunk { range: start..start + length, first_block, row_group, column });
            }
        }
        chunks.sort_unstable_by_key(|chunk| chunk.range.start);
        Ok(Self { tail_start, tail_hash, chunks, blocks, metadata: Arc::new(metadata) })
    }

    /// Where page index and footer start.
    pub(crate) const fn tail_start(&self) -> u64 {
        self.tail_start
    }

    /// Widens a range of a file of this length so that it consists of whole blocks.
    pub(crate) fn widen(&self, range: &Range<u64>, length: u64) -> Range<u64> {
        let start = match self.chunk_at(range.start) {
            Some(chunk) => range.start - (range.start - chunk.range.start) % BLOCK_BYTES,
            None => range.start.min(self.tail_start),
        };
        if range.end > self.tail_start {
            return start..length;
        }
        let end = match self.chunk_at(range.end.saturating_sub(1)) {
            Some(chunk) => {
                let blocks = (range.end - chunk.range.start).div_ceil(BLOCK_BYTES);
                chunk.range.end.min(chunk.range.start + blocks * BLOCK_BYTES)
            }
            None => range.end,
        };
        start..end.max(start)
    }

    /// Returns the column chunk that a byte is in.
    fn chunk_at(&self, position: u64) -> Option<&Chunk> {
        let next = self.chunks.partition_point(|chunk| chunk.range.start <= position);
        self.chunks.get(next.checked_sub(1)?).filter(|chunk| chunk.range.contains(&position))
    }

    /// Compares the bytes of a [widened](Self::widen) range.
    ///
    /// # Errors
    /// Returns what is damaged.
    pub(crate) fn verify(&self, start: u64, bytes: &[u8]) -> Result<(), String> {
        let end = start + bytes.len() as u64;
        let slice = |range: Range<u64>| {
            let (from, to) = (usize::try_from(range.start - start).ok()?, usize::try_from(range.end - start).ok()?);
            bytes.get(from..to)
        };
        let first = self.chunks.partition_point(|chunk| chunk.range.end <= start);
        for chunk in self.chunks.get(first..).unwrap_or_default() {
            let from = chunk.range.start.max(start);
            let to = chunk.range.end.min(end);
            if from >= to {
                break;
            }
            let block = (from - chunk.range.start) / BLOCK_BYTES;
            let expected = self.blocks.get(chunk.first_block + block as usize..).unwrap_or_default();
            let found = slice(from..to).unwrap_or_default();
            let mut pairs = found.chunks(BLOCK_BYTES as usize).zip(expected);
            if !pairs.all(|(block, expected)| crc32fast::hash(block) == *expected) {
                let column = self.metadata.file_metadata().schema_descr().column(chunk.column).path().string();
                let group = chunk.row_group;
                return Err(format!("column {column} of row group {group} does not match its checksum"));
            }
        }
        let tail = (end > self.tail_start).then(|| slice(self.tail_start..end).map(xxh3_128)).flatten();
        if tail.is_some_and(|hash| hash != self.tail_hash) { Err(footer_mismatch()) } else { Ok(()) }
    }
}

fn footer_mismatch() -> String {
    "page index and footer do not match the hash in the file's name".to_owned()
}

/// Parses the footer at the end of these bytes, without the page index.
pub(crate) fn parse_metadata(tail: &[u8]) -> Result<ParquetMetaData, Error> {
    let too_short = || Error::Damaged("the file is shorter than its footer".into());
    let (rest, end) = tail.split_last_chunk::<FOOTER_END_BYTES>().ok_or_else(too_short)?;
    let length = FooterTail::try_new(end)?.metadata_length();
    let start = rest.len().checked_sub(length).ok_or_else(too_short)?;
    Ok(ParquetMetaDataReader::decode_metadata(&rest[start..])?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::{Sample, TenantId};

    use super::*;
    use crate::format::data_file::{DataFile, FilePurpose};
    use crate::format::sample_file::SampleFileWriter;

    /// A file with several row groups whose larger chunks have several blocks.
    fn sample_file() -> DataFile {
        let mut file = SampleFileWriter::new(TenantId::main(), 0, FilePurpose::ShortLived).unwrap();
        for series in 0..12_i64 {
            let value = |step: i64| ((step * 7919 + series) % 1009) as f64 / 8.0;
            let run: Vec<_> =
                (0..50_000).map(|step| (Sample { ts_ms: step * 1000, value: value(step) }, step / 9)).collect();
            file.push(series, &run).unwrap();
        }
        file.finish().unwrap()
    }

    fn checksums(file: &DataFile) -> FileChecksums {
        let tail = &file.bytes[file.tail_start..];
        FileChecksums::read(file.tail_start as u64, tail, xxh3_128(tail)).unwrap()
    }

    #[test]
    fn covers_every_byte_between_the_magic_bytes() {
        let file = sample_file();
        let checksums = checksums(&file);
        assert!(checksums.metadata.num_row_groups() > 1, "several row groups");
        assert!(checksums.blocks.len() > checksums.chunks.len(), "several blocks in a chunk");
        let mut next = 4;
        for chunk in &checksums.chunks {
            assert_eq!(chunk.range.start, next, "no gap between chunks");
            next = chunk.range.end;
        }
        assert_eq!(next, file.tail_start as u64);
        checksums.verify(0, &file.bytes).unwrap();
        let mut damaged = file.bytes.to_vec();
        for position in (4..damaged.len()).step_by(997).chain([4, file.tail_start - 1, damaged.len() - 1]) {
            damaged[position] ^= 0x10;
            let found = checksums.verify(0, &damaged).unwrap_err();
            assert_eq!(found.contains("footer"), position >= file.tail_start, "{found}");
            damaged[position] ^= 0x10;
        }
    }

    #[test]
    fn names_the_column_and_the_row_group() {
        let file = sample_file();
        let checksums = checksums(&file);
        let chunk = checksums.metadata.row_group(1).column(2);
        let mut damaged = file.bytes.to_vec();
        damaged[chunk.byte_range().0 as usize + 20_000] ^= 1;
        let found = checksums.verify(0, &damaged).unwrap_err();
        assert_eq!(found, "column mantissa of row group 1 does not match its checksum");
    }

    #[test]
    fn refuses_a_damaged_footer() {
        let file = sample_file();
        let hash = xxh3_128(&file.bytes[file.tail_start..]);
        let mut tail = file.bytes[file.tail_start..].to_vec();
        let middle = tail.len() / 2;
        tail[middle] ^= 1;
        let found = FileChecksums::read(file.tail_start as u64, &tail, hash).unwrap_err();
        assert_eq!(found, footer_mismatch());
        assert!(FileChecksums::read(file.tail_start as u64, &[], xxh3_128(&[])).is_err(), "no footer at all");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever range is read, a flipped bit in it is found, and one outside of the widened range is not read.
        #[test]
        fn finds_a_flipped_bit_in_any_range(start in 0.0..1.0_f64, length in 1..200_000_u64, at in 0.0..1.0_f64) {
            static FILE: std::sync::LazyLock<DataFile> = std::sync::LazyLock::new(sample_file);
            static CHECKSUMS: std::sync::LazyLock<FileChecksums> = std::sync::LazyLock::new(|| checksums(&FILE));
            let bytes = &FILE.bytes;
            let start = 4 + (start * (bytes.len() - 5) as f64) as u64;
            let end = (start + length).min(bytes.len() as u64);
            let wide = CHECKSUMS.widen(&(start..end), bytes.len() as u64);
            prop_assert!(wide.start <= start && wide.end >= end && wide.end <= bytes.len() as u64);
            let reads_the_tail = end > CHECKSUMS.tail_start;
            prop_assert!(reads_the_tail || wide.end - wide.start <= end - start + 2 * BLOCK_BYTES);
            let mut read = bytes[wide.start as usize..wide.end as usize].to_vec();
            prop_assert!(CHECKSUMS.verify(wide.start, &read).is_ok());
            let flipped = (start - wide.start) as usize + (at * (end - start) as f64) as usize;
            read[flipped] ^= 1;
            prop_assert!(CHECKSUMS.verify(wide.start, &read).is_err());
        }
    }
}
