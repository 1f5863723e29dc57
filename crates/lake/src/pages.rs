//! The columns of a row group of samples, as Parquet pages.
//!
//! Problem: a general Parquet writer looks at each value of each column by itself, which cost more than half of a flush. Model: of
//! the six columns of `silver.samples` it is known that series, times and offsets come in runs or in even steps, that most values
//! are decimals, and that none of them is a list; so a page is packed block by block. Guarantee: files of the format as any
//! reader knows it, version 1 pages with the encodings that the general writer chose; header, footer and page index are the
//! library's.
//!
//! Source: Apache Parquet format 2.11, *Encodings* (`DELTA_BINARY_PACKED`, `RLE`, `RLE_DICTIONARY`, `PLAIN`) and *Page index*.

use bytes::Bytes;
use deltalake_core::parquet::basic::{BoundaryOrder, Compression, Encoding, Type};
use deltalake_core::parquet::column::page::{CompressedPage, Page, PageWriter};
use deltalake_core::parquet::column::writer::ColumnCloseResult;
use deltalake_core::parquet::errors::ParquetError;
use deltalake_core::parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use deltalake_core::parquet::file::statistics::Statistics;
use deltalake_core::parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use deltalake_core::parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use crate::Error;

/// Deltas of a block, and of each of its parts, which have widths of their own. A block that reaches into the next series has wide
/// deltas: it is as short as the format allows.
const BLOCK: usize = 128;
const PART: usize = 32;

/// A column of one row group on its way in.
pub(crate) struct Chunk {
    column: ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    encodings: Vec<Encoding>,
    compression: Compression,
    /// Of the pages, with their headers.
    uncompressed: usize,
    places: Vec<Place>,
}

/// A page that is written.
struct Place {
    offset: i64,
    bytes: i32,
    rows: i64,
    bounds: Option<(i64, i64)>,
}

/// A page as it is handed over.
pub(crate) struct Values<'a> {
    pub(crate) rows: usize,
    pub(crate) encoding: Encoding,
    /// Levels, where the column may be empty, and values.
    pub(crate) encoded: &'a [u8],
    /// Smallest and largest, if readers are to leave pages out by them.
    pub(crate) bounds: Option<(i64, i64)>,
}

/// What makes pages small, unless they stay as they are.
pub(crate) type Zip<'a> = Option<&'a mut Compressor<'static>>;

impl Chunk {
    pub(crate) fn new(column: ColumnDescPtr, compression: Compression) -> Self {
        let sink = TrackedWrite::new(Vec::new());
        Self { column, sink, encodings: Vec::new(), compression, uncompressed: 0, places: Vec::new() }
    }

    /// Adds a page.
    pub(crate) fn page(&mut self, values: &Values<'_>, zip: Zip<'_>) -> Result<(), Error> {
        let page = Page::DataPage {
            buf: compressed(values.encoded, zip)?,
            num_values: count(values.rows)?,
            encoding: values.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let page = CompressedPage::new(page, values.encoded.len());
        let written = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        self.uncompressed += written.uncompressed_size;
        if !self.encodings.contains(&values.encoding) {
            self.encodings.push(values.encoding);
        }
        self.places.push(Place {
            offset: written.offset as i64,
            bytes: written.compressed_size as i32,
            rows: values.rows as i64,
            bounds: values.bounds,
        });
        Ok(())
    }

    /// The column's bytes and what the footer says of them. Its dictionary, values of a fixed size in the encoding `PLAIN`, comes
    /// last, for only now all of it is known, and stands first.
    pub(crate) fn close(
        mut self,
        dictionary: Option<(&[u8], usize)>,
        zip: Zip<'_>,
    ) -> Result<(Bytes, ColumnCloseResult), Error> {
        let mut start = TrackedWrite::new(Vec::new());
        if let Some((values, entries)) = dictionary {
            let buf = compressed(values, zip)?;
            let page =
                Page::DictionaryPage { buf, num_values: count(entries)?, encoding: Encoding::PLAIN, is_sorted: false };
            let page = CompressedPage::new(page, values.len());
            self.uncompressed += SerializedPageWriter::new(&mut start).write_page(page)?.uncompressed_size;
            self.encodings.push(Encoding::PLAIN);
        }
        let mut bytes = start.into_inner()?;
        let shift = bytes.len() as i64;
        bytes.extend_from_slice(&self.sink.into_inner()?);
        let levels = self.column.max_def_level() > 0;
        self.encodings.extend(levels.then_some(Encoding::RLE));
        let rows: i64 = self.places.iter().map(|page| page.rows).sum();
        let mut metadata = ColumnChunkMetaData::builder(self.column.clone())
            .set_compression(self.compression)
            .set_encodings(self.encodings)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(rows)
            .set_data_page_offset(shift)
            .set_dictionary_page_offset(dictionary.map(|_| 0));
        let bounds: Option<Vec<_>> = self.places.iter().map(|page| page.bounds).collect();
        let bounds = bounds.filter(|bounds| !bounds.is_empty());
        if let Some(bounds) = &bounds {
            let low = bounds.iter().map(|(low, _)| *low).min();
            let high = bounds.iter().map(|(_, high)| *high).max();
            metadata = metadata.set_statistics(Statistics::int64(low, high, None, Some(0), false));
        }
        let mut offsets = OffsetIndexBuilder::new();
        for page in &self.places {
            offsets.append_offset_and_size(page.offset + shift, page.bytes);
            offsets.append_row_count(page.rows);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: bounds.map(|bounds| index(&bounds).build()).transpose()?,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes.into(), close))
    }
}

/// What each page ranges over.
fn index(bounds: &[(i64, i64)]) -> ColumnIndexBuilder {
    let mut index = ColumnIndexBuilder::new(Type::INT64);
    for (low, high) in bounds {
        index.append(false, low.to_le_bytes().into(), high.to_le_bytes().into(), 0);
    }
    if bounds.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1) {
        index.set_boundary_order(BoundaryOrder::ASCENDING);
    }
    index
}

fn compressed(values: &[u8], zip: Zip<'_>) -> Result<Bytes, Error> {
    let failed = |error| ParquetError::External(Box::new(error));
    Ok(match zip {
        Some(zip) => zip.compress(values).map_err(failed)?.into(),
        None => Bytes::copy_from_slice(values),
    })
}

fn count(values: usize) -> Result<u32, Error> {
    u32::try_from(values).map_err(|_| ParquetError::General("more values than a page can have".to_owned()).into())
}

/// Which values of a column that may be empty are there: one level each, one bit wide, with their size before them.
pub(crate) fn levels(there: &[bool], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    let all = there.iter().filter(|there| **there).count();
    if all == there.len() || all == 0 {
        run(u16::from(all > 0), there.len(), 1, out);
    } else {
        let there: Vec<u16> = there.iter().map(|there| u16::from(*there)).collect();
        hybrid(&there, 1, out);
    }
    let size = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&size.to_le_bytes());
}

/// Places in a dictionary of so many entries, with their width before them.
pub(crate) fn indices(of: &[u16], entries: usize, out: &mut Vec<u8>) {
    let width = (usize::BITS - entries.saturating_sub(1).leading_zeros()).max(1);
    out.push(width as u8);
    hybrid(of, width, out);
}

/// Small numbers of a width, as runs of one value where there are such, else packed in groups of eight.
fn hybrid(values: &[u16], width: u32, out: &mut Vec<u8>) {
    // What is before `at` and not written yet begins at `open`.
    let (mut open, mut at) = (0, 0);
    while let Some(value) = values.get(at) {
        let length = values[at..].iter().take_while(|next| *next == value).count();
        // Groups are whole: a few of a run may be needed to fill the last.
        let fill = (at - open).next_multiple_of(8) - (at - open);
        if length >= fill + 8 {
            groups(&values[open..at + fill], width, out);
            run(*value, length - fill, width, out);
            open = at + length;
        }
        at += length;
    }
    groups(&values[open..], width, out);
}

/// So many times the same.
fn run(value: u16, length: usize, width: u32, out: &mut Vec<u8>) {
    varint((length as u64) << 1, out);
    out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
}

/// Groups of eight; what the last lacks is zero.
fn groups(values: &[u16], width: u32, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let count = values.len().div_ceil(8);
    varint((count as u64) << 1 | 1, out);
    for group in values.chunks(8) {
        let packed = group.iter().rev().fold(0_u128, |packed, value| packed << width | u128::from(*value));
        // The first stands in the lowest bits; a short group has its values there too.
        out.extend_from_slice(&packed.to_le_bytes()[..width as usize]);
    }
}

/// Whole numbers as differences, of each block those from its smallest.
pub(crate) fn deltas(values: &[i64], out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint((BLOCK / PART) as u64, out);
    varint(values.len() as u64, out);
    let Some((first, rest)) = values.split_first() else { return varint(0, out) };
    zigzag(*first, out);
    let mut last = *first;
    let mut block = [0_i64; BLOCK];
    for values in rest.chunks(BLOCK) {
        let deltas = &mut block[..values.len()];
        let before = std::iter::once(last).chain(values.iter().copied());
        for ((delta, value), before) in deltas.iter_mut().zip(values).zip(before) {
            *delta = value.wrapping_sub(before);
        }
        last = values.last().copied().unwrap_or(last);
        let step = deltas.first().copied().unwrap_or_default();
        if deltas.iter().fold(0, |other, delta| other | (delta ^ step)) == 0 {
            // As nearly all of series, times and offsets are.
            zigzag(step, out);
            out.extend([0; BLOCK / PART]);
            continue;
        }
        let least = deltas.iter().copied().min().unwrap_or_default();
        zigzag(least, out);
        let widths = out.len();
        out.extend([0; BLOCK / PART]);
        for (at, part) in deltas.chunks(PART).enumerate() {
            let mut above = [0_u64; PART];
            let mut busy = 0;
            for (above, delta) in above.iter_mut().zip(part) {
                *above = delta.wrapping_sub(least).cast_unsigned();
                busy |= *above;
            }
            let width = u64::BITS - busy.leading_zeros();
            out[widths + at] = width as u8;
            pack(&above, width, out);
        }
    }
}

/// A part's values, the first in the lowest bits.
fn pack(values: &[u64; PART], width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    // One more than there can be, so that a value may always reach into the next.
    let mut words = [0_u64; PART + 1];
    let mut bit = 0;
    for value in values {
        let (word, shift) = ((bit / 64) as usize, bit % 64);
        words[word] |= value << shift;
        words[word + 1] |= (value >> 1) >> (63 - shift);
        bit += width;
    }
    let (whole, half) = (width as usize / 2, width % 2 == 1);
    words[..whole].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.extend_from_slice(&words[whole].to_le_bytes()[..if half { 4 } else { 0 }]);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use deltalake_core::arrow::array::{AsArray, types::Int64Type};
    use deltalake_core::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use deltalake_core::parquet::file::properties::WriterProperties;
    use deltalake_core::parquet::file::writer::SerializedFileWriter;
    use deltalake_core::parquet::schema::parser::parse_message_type;
    use deltalake_core::parquet::schema::types::SchemaDescriptor;
    use proptest::prelude::*;

    use super::*;

    const DICTIONARY: [i64; 5] = [7, -1, i64::MAX, 0, i64::MIN];

    /// A file of two columns, a page for each list.
    fn file(pages: &[Vec<(i64, Option<u16>)>], zipped: bool) -> Bytes {
        let schema = Arc::new(parse_message_type("message m { required int64 a; optional int64 b; }").unwrap());
        let columns = SchemaDescriptor::new(Arc::clone(&schema));
        let compression = if zipped { Compression::ZSTD(Default::default()) } else { Compression::UNCOMPRESSED };
        let mut chunks = [0, 1].map(|at| Chunk::new(columns.column(at), compression));
        let mut zip = zipped.then(|| Compressor::new(1).unwrap());
        for page in pages {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            let all: Vec<i64> = page.iter().map(|(a, _)| *a).collect();
            deltas(&all, &mut a);
            levels(&page.iter().map(|(_, b)| b.is_some()).collect::<Vec<_>>(), &mut b);
            indices(&page.iter().filter_map(|(_, b)| *b).collect::<Vec<_>>(), DICTIONARY.len(), &mut b);
            let bounds = all.iter().min().copied().zip(all.iter().max().copied());
            let (rows, encodings) = (page.len(), [Encoding::DELTA_BINARY_PACKED, Encoding::RLE_DICTIONARY]);
            for ((chunk, encoded), (encoding, bounds)) in
                chunks.iter_mut().zip([&a, &b]).zip(encodings.into_iter().zip([bounds, None]))
            {
                chunk.page(&Values { rows, encoding, encoded, bounds }, zip.as_mut()).unwrap();
            }
        }
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default())).unwrap();
        let mut group = file.next_row_group().unwrap();
        let entries: Vec<u8> = DICTIONARY.into_iter().flat_map(i64::to_le_bytes).collect();
        for (chunk, dictionary) in chunks.into_iter().zip([None, Some((entries.as_slice(), DICTIONARY.len()))]) {
            let (bytes, close) = chunk.close(dictionary, zip.as_mut()).unwrap();
            group.append_column(&bytes, close).unwrap();
        }
        group.close().unwrap();
        file.into_inner().unwrap().into()
    }

    fn read(file: Bytes) -> Vec<(i64, Option<i64>)> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let rows = reader.flat_map(|batch| {
            let batch = batch.unwrap();
            let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
            column(0).into_iter().map(Option::unwrap).zip(column(1)).collect::<Vec<_>>()
        });
        rows.collect()
    }

    /// Runs, short and long, of one entry or of none, and numbers near each other or anywhere.
    fn page() -> impl Strategy<Value = Vec<(i64, Option<u16>)>> {
        let near = (any::<i64>(), prop_oneof![Just(1_i64), Just(1 << 20), Just(1 << 62)]);
        let run = (near, prop::option::weighted(0.8, 0_u16..5), prop_oneof![1_usize..12, 1_usize..700]);
        prop::collection::vec(run, 1..12).prop_map(|runs| {
            let run = |((start, step), entry, length): ((i64, i64), Option<u16>, usize)| {
                (0..length as i64).map(move |at| (start.wrapping_add(at.wrapping_mul(at).wrapping_mul(step)), entry))
            };
            runs.into_iter().flat_map(run).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_is_packed_is_read_as_it_was(pages in prop::collection::vec(page(), 1..4), zipped: bool) {
            let entry = |place: u16| DICTIONARY[usize::from(place)];
            let expected: Vec<_> = pages.iter().flatten().map(|(a, b)| (*a, b.map(entry))).collect();
            prop_assert_eq!(read(file(&pages, zipped)), expected);
        }
    }
}
