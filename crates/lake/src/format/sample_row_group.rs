//! Encodes a row group of `silver.samples`, page by page.

use std::collections::HashMap;

use deltalake_core::parquet::basic::{Compression, Encoding, ZstdLevel};
use deltalake_core::parquet::file::writer::SerializedFileWriter;
use deltalake_core::parquet::schema::types::SchemaDescPtr;
use wardroom_domain::Sample;
use zstd::bulk::Compressor;

use crate::error::Error;
use crate::format::data_file::FilePurpose;
use crate::format::decimal::{DecimalColumns, POWERS_OF_TEN};
use crate::format::parquet_pages::{
    ColumnChunkWriter, EncodedPage, PageCompressor, encode_definition_levels, encode_deltas, encode_dictionary_indices,
};

/// Rows per page: the minimum read for one series.
const PAGE_ROWS: usize = 20_000;
/// Rows per row group. Its encoded pages are held in memory until it is full.
const ROW_GROUP_ROWS: usize = 1 << 20;
/// Rows per row group of a short-lived file.
const SHORT_LIVED_ROW_GROUP_ROWS: usize = 1 << 18;
/// Maximum number of dictionary entries.
const MAX_DICTIONARY_ENTRIES: usize = 1 << 16;

/// Column index in `silver.samples`.
#[derive(Clone, Copy)]
enum SampleColumn {
    Series,
    Ts,
    Mantissa,
    Exponent,
    Value,
    Offset,
}

const SAMPLE_COLUMNS: [SampleColumn; 6] = [
    SampleColumn::Series,
    SampleColumn::Ts,
    SampleColumn::Mantissa,
    SampleColumn::Exponent,
    SampleColumn::Value,
    SampleColumn::Offset,
];

/// A row group, and its page in progress.
pub(crate) struct SampleRowGroup {
    columns: SchemaDescPtr,
    purpose: FilePurpose,
    compressor: Compressor<'static>,
    chunks: Vec<ColumnChunkWriter>,
    offsets: Dictionary,
    rows: usize,
    page: PageColumns,
    /// Buffer for the encoded page.
    encoded: Vec<u8>,
}

/// Column values of the page in progress.
#[derive(Default)]
struct PageColumns {
    series: Vec<i64>,
    ts_us: Vec<i64>,
    decimals: DecimalColumns,
    values: Vec<f64>,
    offsets: Vec<i64>,
}

/// Distinct values in order of appearance.
#[derive(Default)]
struct Dictionary {
    entries: Vec<u8>,
    ids: HashMap<i64, u16>,
}

impl SampleRowGroup {
    pub(crate) fn new(columns: SchemaDescPtr, purpose: FilePurpose) -> Result<Self, Error> {
        let compressor = Compressor::new(purpose.zstd_level()).map_err(|error| Error::Damaged(error.to_string()))?;
        let mut group = Self {
            columns,
            purpose,
            compressor,
            chunks: Vec::new(),
            offsets: Dictionary::default(),
            rows: 0,
            page: PageColumns::with_capacity(PAGE_ROWS),
            encoded: Vec::new(),
        };
        group.start()?;
        Ok(group)
    }

    /// Starts an empty row group.
    fn start(&mut self) -> Result<(), Error> {
        let zstd = Compression::ZSTD(ZstdLevel::try_new(self.purpose.zstd_level())?);
        let compression = |column| if is_uncompressed(self.purpose, column) { Compression::UNCOMPRESSED } else { zstd };
        self.chunks = SAMPLE_COLUMNS
            .iter()
            .map(|column| ColumnChunkWriter::new(self.columns.column(*column as usize), compression(*column)))
            .collect();
        self.offsets = Dictionary::default();
        self.rows = 0;
        Ok(())
    }

    /// Appends a run of one series.
    pub(crate) fn push(&mut self, series_id: i64, mut run: &[(Sample, i64)]) -> Result<(), Error> {
        self.rows += run.len();
        while !run.is_empty() {
            let (head, rest) = run.split_at(run.len().min(PAGE_ROWS - self.page.series.len()));
            self.page.push(series_id, head);
            if self.page.series.len() == PAGE_ROWS {
                self.flush_page()?;
            }
            run = rest;
        }
        Ok(())
    }

    /// Returns whether the row group has reached its size.
    pub(crate) const fn is_full(&self) -> bool {
        self.rows
            >= if matches!(self.purpose, FilePurpose::ShortLived) { SHORT_LIVED_ROW_GROUP_ROWS } else { ROW_GROUP_ROWS }
    }

    /// Writes the row group to a file and starts the next.
    pub(crate) fn close(&mut self, file: &mut SerializedFileWriter<Vec<u8>>) -> Result<(), Error> {
        if self.rows == 0 {
            return Ok(());
        }
        self.flush_page()?;
        let exponents: Vec<u8> = (0..POWERS_OF_TEN.len() as i32).flat_map(i32::to_le_bytes).collect();
        let mut group = file.next_row_group()?;
        for (column, chunk) in SAMPLE_COLUMNS.into_iter().zip(std::mem::take(&mut self.chunks)) {
            let dictionary = match column {
                SampleColumn::Exponent => Some((exponents.as_slice(), POWERS_OF_TEN.len())),
                // A flush has one offset, a merged file a few.
                SampleColumn::Offset if !self.offsets.ids.is_empty() => {
                    Some((self.offsets.entries.as_slice(), self.offsets.ids.len()))
                }
                _ => None,
            };
            let (bytes, close) =
                chunk.close(dictionary, page_compressor(&mut self.compressor, self.purpose, column))?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        self.start()
    }

    /// Encodes and compresses the page in progress.
    fn flush_page(&mut self) -> Result<(), Error> {
        let rows = self.page.series.len();
        if rows == 0 {
            return Ok(());
        }
        for column in SAMPLE_COLUMNS {
            self.encoded.clear();
            let encoding = self.page.encode(column, self.purpose, &mut self.offsets, &mut self.encoded);
            let bounds = match column {
                SampleColumn::Series => self.page.series.first().copied().zip(self.page.series.last().copied()),
                SampleColumn::Ts => self.page.ts_us.iter().min().copied().zip(self.page.ts_us.iter().max().copied()),
                _ => None,
            };
            let values = EncodedPage { rows, encoding, encoded: &self.encoded, bounds };
            self.chunks[column as usize]
                .write_page(&values, page_compressor(&mut self.compressor, self.purpose, column))?;
        }
        self.page.clear();
        Ok(())
    }
}

/// Compressing values takes most of the time and gains little while the runs of a series are short.
fn is_uncompressed(purpose: FilePurpose, column: SampleColumn) -> bool {
    purpose == FilePurpose::ShortLived && matches!(column, SampleColumn::Mantissa | SampleColumn::Value)
}

fn page_compressor<'a>(
    compressor: &'a mut Compressor<'static>,
    purpose: FilePurpose,
    column: SampleColumn,
) -> PageCompressor<'a> {
    (!is_uncompressed(purpose, column)).then_some(compressor)
}

impl PageColumns {
    /// Allocates all columns for this number of rows.
    fn with_capacity(rows: usize) -> Self {
        Self {
            series: Vec::with_capacity(rows),
            ts_us: Vec::with_capacity(rows),
            decimals: DecimalColumns::with_capacity(rows),
            values: Vec::with_capacity(rows),
            offsets: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, series_id: i64, run: &[(Sample, i64)]) {
        self.series.extend(std::iter::repeat_n(series_id, run.len()));
        self.ts_us.extend(run.iter().map(|(sample, _)| sample.ts_ms.saturating_mul(1000)));
        self.offsets.extend(run.iter().map(|(_, offset)| *offset));
        let start = self.values.len();
        self.values.extend(run.iter().map(|(sample, _)| sample.value));
        self.decimals.push(&self.values[start..]);
    }

    fn clear(&mut self) {
        self.series.clear();
        self.ts_us.clear();
        self.decimals.clear();
        self.values.clear();
        self.offsets.clear();
    }

    /// Encodes a column of the page.
    fn encode(
        &self,
        column: SampleColumn,
        purpose: FilePurpose,
        dictionary: &mut Dictionary,
        out: &mut Vec<u8>,
    ) -> Encoding {
        let DecimalColumns { mantissas, exponents, is_decimal } = &self.decimals;
        let all_decimal = is_decimal.iter().all(|is_decimal| *is_decimal);
        match column {
            SampleColumn::Series => encode_deltas(&self.series, out),
            SampleColumn::Ts => encode_deltas(&self.ts_us, out),
            SampleColumn::Mantissa => {
                encode_definition_levels(is_decimal, out);
                let decimals = || {
                    mantissas
                        .iter()
                        .zip(is_decimal)
                        .filter(|(_, is_decimal)| **is_decimal)
                        .map(|(mantissa, _)| *mantissa)
                };
                if all_decimal {
                    encode_deltas(mantissas, out)
                } else {
                    encode_deltas(&decimals().collect::<Vec<_>>(), out)
                }
            }
            SampleColumn::Exponent => {
                encode_definition_levels(is_decimal, out);
                let decimals = exponents.iter().zip(is_decimal).filter(|(_, is_decimal)| **is_decimal);
                let ids: Vec<u16> = decimals.map(|(exponent, _)| exponent.unsigned_abs().into()).collect();
                encode_dictionary_indices(&ids, POWERS_OF_TEN.len(), out);
                return Encoding::RLE_DICTIONARY;
            }
            SampleColumn::Value => {
                let is_double: Vec<bool> = is_decimal.iter().map(|is_decimal| !is_decimal).collect();
                encode_definition_levels(&is_double, out);
                // Not BYTE_STREAM_SPLIT: Spark 3 does not support it.
                let doubles = self.values.iter().zip(is_decimal).filter(|(_, is_decimal)| !**is_decimal);
                doubles.for_each(|(value, _)| out.extend_from_slice(&value.to_le_bytes()));
                return Encoding::PLAIN;
            }
            // A flush has one offset, a merged file a few.
            SampleColumn::Offset if purpose == FilePurpose::ShortLived => encode_deltas(&self.offsets, out),
            SampleColumn::Offset => match dictionary.lookup(&self.offsets) {
                Some(ids) => {
                    encode_dictionary_indices(&ids, dictionary.ids.len(), out);
                    return Encoding::RLE_DICTIONARY;
                }
                None => encode_deltas(&self.offsets, out),
            },
        }
        Encoding::DELTA_BINARY_PACKED
    }
}

impl Dictionary {
    /// Returns the dictionary ids of these values, or `None` if the dictionary is full.
    fn lookup(&mut self, values: &[i64]) -> Option<Vec<u16>> {
        let mut ids = Vec::with_capacity(values.len());
        for equal_run in values.chunk_by(|a, b| a == b) {
            let value = *equal_run.first()?;
            let id = match self.ids.get(&value) {
                Some(id) => *id,
                None if self.ids.len() == MAX_DICTIONARY_ENTRIES => return None,
                None => {
                    let id = self.ids.len() as u16;
                    self.entries.extend_from_slice(&value.to_le_bytes());
                    self.ids.insert(value, id);
                    id
                }
            };
            ids.extend(std::iter::repeat_n(id, equal_run.len()));
        }
        Some(ids)
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::TenantId;

    use super::*;
    use crate::format::sample_file::{SampleFileWriter, read_sample_file};

    /// More rows than a row group and more offsets than a dictionary, with values that are decimals, that are not, and
    /// both.
    #[test]
    fn reads_rows_back_across_pages_row_groups_and_full_dictionaries() {
        for (purpose, series) in [(FilePurpose::ShortLived, 3), (FilePurpose::LongLived, 12)] {
            let value = |series: i64, step: i64| match (series + step / 70_000) % 3 {
                0 => step as f64 / 8.0,
                1 => (step as f64).sqrt(),
                _ if step % 7 == 0 => f64::from_bits(0x7ff0_0000_0000_0001 + step.unsigned_abs()),
                _ => (step * 1_000_003 % 9_007_199_254) as f64,
            };
            let run = |series: i64| -> Vec<(Sample, i64)> {
                let sample = |step: i64| Sample { ts_ms: step * 15_000 - 7_000_000, value: value(series, step) };
                (0..100_000).map(|step| (sample(step), step / (1 + series % 2 * 1000) + series)).collect()
            };
            let mut file = SampleFileWriter::new(TenantId::main(), 0, purpose).unwrap();
            (0..series).for_each(|series| file.push(series, &run(series)).unwrap());
            let rows = read_sample_file(file.finish().unwrap().bytes).unwrap();
            let expected = (0..series).flat_map(|series| run(series).into_iter().map(move |row| (series, row)));
            assert_eq!(rows.len() as i64, series * 100_000);
            for (row, (series, (sample, offset))) in rows.iter().zip(expected) {
                let found = (row.series_id, row.sample.ts_ms, row.sample.value.to_bits(), row.offset);
                assert_eq!(found, (series, sample.ts_ms, sample.value.to_bits(), offset));
            }
        }
    }
}
