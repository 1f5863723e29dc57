//! A row group of samples on its way into a file.

use std::collections::HashMap;

use deltalake_core::parquet::basic::{Compression, Encoding, ZstdLevel};
use deltalake_core::parquet::file::writer::SerializedFileWriter;
use deltalake_core::parquet::schema::types::SchemaDescPtr;
use wardroom_domain::Sample;
use zstd::bulk::Compressor;

use crate::Error;
use crate::decimal::{Decimals, POWERS};
use crate::pages::{Chunk, Values, Zip, deltas, indices, levels};
use crate::samples::Use;

/// Rows of a page: what reading one series costs at least.
const PAGE: usize = 20_000;
/// Rows of a group, whose pages wait in memory until it is full.
const ROWS: usize = 1 << 20;
/// The same of a file that is merged soon.
const FLUSH_ROWS: usize = 1 << 18;
/// Entries that a dictionary may have.
const ENTRIES: usize = 1 << 16;

/// Where a column stands in `silver.samples`.
#[derive(Clone, Copy)]
enum At {
    Series,
    Ts,
    Mantissa,
    Exponent,
    Value,
    Offset,
}

const ALL: [At; 6] = [At::Series, At::Ts, At::Mantissa, At::Exponent, At::Value, At::Offset];

/// A row group, and the page of it that is filled.
pub(crate) struct Group {
    columns: SchemaDescPtr,
    use_of: Use,
    zip: Compressor<'static>,
    chunks: Vec<Chunk>,
    offsets: Dictionary,
    rows: usize,
    page: Page,
    /// A page as it is written.
    encoded: Vec<u8>,
}

/// Columns of a page.
#[derive(Default)]
struct Page {
    series: Vec<i64>,
    ts_us: Vec<i64>,
    decimals: Decimals,
    values: Vec<f64>,
    offsets: Vec<i64>,
}

/// Different values, in the order in which they came.
#[derive(Default)]
struct Dictionary {
    entries: Vec<u8>,
    known: HashMap<i64, u16>,
}

impl Group {
    pub(crate) fn new(columns: SchemaDescPtr, use_of: Use) -> Result<Self, Error> {
        let zip = Compressor::new(use_of.level()).map_err(|error| Error::Damaged(error.to_string()))?;
        let mut this = Self {
            columns,
            use_of,
            zip,
            chunks: Vec::new(),
            offsets: Dictionary::default(),
            rows: 0,
            page: Page::with_capacity(PAGE),
            encoded: Vec::new(),
        };
        this.open()?;
        Ok(this)
    }

    /// Begins with an empty one.
    fn open(&mut self) -> Result<(), Error> {
        let zipped = Compression::ZSTD(ZstdLevel::try_new(self.use_of.level())?);
        let compression = |at| if bare(self.use_of, at) { Compression::UNCOMPRESSED } else { zipped };
        self.chunks = ALL.iter().map(|at| Chunk::new(self.columns.column(*at as usize), compression(*at))).collect();
        self.offsets = Dictionary::default();
        self.rows = 0;
        Ok(())
    }

    /// Adds a run of one series.
    pub(crate) fn push(&mut self, series_id: i64, mut run: &[(Sample, i64)]) -> Result<(), Error> {
        self.rows += run.len();
        while !run.is_empty() {
            let (now, later) = run.split_at(run.len().min(PAGE - self.page.series.len()));
            self.page.push(series_id, now);
            if self.page.series.len() == PAGE {
                self.write()?;
            }
            run = later;
        }
        Ok(())
    }

    /// Whether it has the rows that a group should have.
    pub(crate) const fn is_full(&self) -> bool {
        self.rows >= if matches!(self.use_of, Use::Flush) { FLUSH_ROWS } else { ROWS }
    }

    /// Writes it to a file, and begins the next.
    pub(crate) fn close(&mut self, file: &mut SerializedFileWriter<Vec<u8>>) -> Result<(), Error> {
        if self.rows == 0 {
            return Ok(());
        }
        self.write()?;
        let exponents: Vec<u8> = (0..POWERS.len() as i32).flat_map(i32::to_le_bytes).collect();
        let mut group = file.next_row_group()?;
        for (at, chunk) in ALL.into_iter().zip(std::mem::take(&mut self.chunks)) {
            let dictionary = match at {
                At::Exponent => Some((exponents.as_slice(), POWERS.len())),
                At::Offset if !self.offsets.known.is_empty() => {
                    Some((self.offsets.entries.as_slice(), self.offsets.known.len()))
                }
                _ => None,
            };
            let (bytes, close) = chunk.close(dictionary, zip(&mut self.zip, self.use_of, at))?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        self.open()
    }

    /// Packs the page, if there is anything in it.
    fn write(&mut self) -> Result<(), Error> {
        let rows = self.page.series.len();
        if rows == 0 {
            return Ok(());
        }
        for at in ALL {
            self.encoded.clear();
            let encoding = self.page.encode(at, self.use_of, &mut self.offsets, &mut self.encoded);
            let bounds = match at {
                At::Series => self.page.series.first().copied().zip(self.page.series.last().copied()),
                At::Ts => self.page.ts_us.iter().min().copied().zip(self.page.ts_us.iter().max().copied()),
                _ => None,
            };
            let values = Values { rows, encoding, encoded: &self.encoded, bounds };
            self.chunks[at as usize].page(&values, zip(&mut self.zip, self.use_of, at))?;
        }
        self.page.clear();
        Ok(())
    }
}

/// Most of the work, and next to nothing gained before a series' values stand in a row.
fn bare(use_of: Use, at: At) -> bool {
    use_of == Use::Flush && matches!(at, At::Mantissa | At::Value)
}

fn zip<'a>(zip: &'a mut Compressor<'static>, use_of: Use, at: At) -> Zip<'a> {
    (!bare(use_of, at)).then_some(zip)
}

impl Page {
    /// Room for so many rows, so that none of them grows while it is filled.
    fn with_capacity(rows: usize) -> Self {
        Self {
            series: Vec::with_capacity(rows),
            ts_us: Vec::with_capacity(rows),
            decimals: Decimals::with_capacity(rows),
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

    /// A column as it stands in a page.
    fn encode(&self, at: At, use_of: Use, known: &mut Dictionary, out: &mut Vec<u8>) -> Encoding {
        let Decimals { mantissas, exponents, found } = &self.decimals;
        let all = found.iter().all(|found| *found);
        match at {
            At::Series => deltas(&self.series, out),
            At::Ts => deltas(&self.ts_us, out),
            At::Mantissa => {
                levels(found, out);
                let some = || mantissas.iter().zip(found).filter(|(_, found)| **found).map(|(mantissa, _)| *mantissa);
                if all { deltas(mantissas, out) } else { deltas(&some().collect::<Vec<_>>(), out) }
            }
            At::Exponent => {
                levels(found, out);
                let some = exponents.iter().zip(found).filter(|(_, found)| **found);
                let some: Vec<u16> = some.map(|(exponent, _)| exponent.unsigned_abs().into()).collect();
                indices(&some, POWERS.len(), out);
                return Encoding::RLE_DICTIONARY;
            }
            At::Value => {
                let other: Vec<bool> = found.iter().map(|found| !found).collect();
                levels(&other, out);
                // No BYTE_STREAM_SPLIT: Spark 3 does not know it.
                let some = self.values.iter().zip(found).filter(|(_, found)| !**found);
                some.for_each(|(value, _)| out.extend_from_slice(&value.to_le_bytes()));
                return Encoding::PLAIN;
            }
            // One for a whole flush; a few in turn once these are merged.
            At::Offset if use_of == Use::Flush => deltas(&self.offsets, out),
            At::Offset => match known.places(&self.offsets) {
                Some(places) => {
                    indices(&places, known.known.len(), out);
                    return Encoding::RLE_DICTIONARY;
                }
                None => deltas(&self.offsets, out),
            },
        }
        Encoding::DELTA_BINARY_PACKED
    }
}

impl Dictionary {
    /// Where these stand in it; nothing if it has no room for them.
    fn places(&mut self, values: &[i64]) -> Option<Vec<u16>> {
        let mut places = Vec::with_capacity(values.len());
        for same in values.chunk_by(|a, b| a == b) {
            let value = *same.first()?;
            let place = match self.known.get(&value) {
                Some(place) => *place,
                None if self.known.len() == ENTRIES => return None,
                None => {
                    let place = self.known.len() as u16;
                    self.entries.extend_from_slice(&value.to_le_bytes());
                    self.known.insert(value, place);
                    place
                }
            };
            places.extend(std::iter::repeat_n(place, same.len()));
        }
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::TenantId;

    use super::*;
    use crate::samples::{SampleFile, read};

    /// More than a group holds, and more offsets than a dictionary, with values that are decimals, that are not, and both in turn.
    #[test]
    fn rows_come_back_over_the_ends_of_pages_groups_and_dictionaries() {
        for (use_of, series) in [(Use::Flush, 3), (Use::Stay, 12)] {
            let value = |series: i64, at: i64| match (series + at / 70_000) % 3 {
                0 => at as f64 / 8.0,
                1 => (at as f64).sqrt(),
                _ if at % 7 == 0 => f64::from_bits(0x7ff0_0000_0000_0001 + at.unsigned_abs()),
                _ => (at * 1_000_003 % 9_007_199_254) as f64,
            };
            let run = |series: i64| -> Vec<(Sample, i64)> {
                let sample = |at: i64| Sample { ts_ms: at * 15_000 - 7_000_000, value: value(series, at) };
                (0..100_000).map(|at| (sample(at), at / (1 + series % 2 * 1000) + series)).collect()
            };
            let mut file = SampleFile::new(TenantId::main(), 0, use_of).unwrap();
            (0..series).for_each(|series| file.push(series, &run(series)).unwrap());
            let rows = read(file.finish().unwrap().bytes).unwrap();
            let expected = (0..series).flat_map(|series| run(series).into_iter().map(move |row| (series, row)));
            assert_eq!(rows.len() as i64, series * 100_000);
            for (row, (series, (sample, offset))) in rows.iter().zip(expected) {
                let found = (row.series_id, row.sample.ts_ms, row.sample.value.to_bits(), row.offset);
                assert_eq!(found, (series, sample.ts_ms, sample.value.to_bits(), offset));
            }
        }
    }
}
