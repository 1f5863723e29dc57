//! Encodes column chunks of `silver.samples` as Parquet pages.
//!
//! Problem: a general Parquet writer handles each value of each column separately, which took more than half of a
//! flush. Model: series, times and offsets of `silver.samples` come in runs or even steps, most values are decimals,
//! and no column is nested, so a page is encoded block by block. Guarantee: files that any Parquet reader can read,
//! with version 1 pages and the encodings that the general writer chooses. The `parquet` crate writes page headers,
//! footer and page index.
//!
//! Source: Apache Parquet format 2.11, *Encodings* (`DELTA_BINARY_PACKED`, `RLE`, `RLE_DICTIONARY`, `PLAIN`) and *Page
//! index*.

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

use crate::error::Error;

/// Deltas per block. The minimum that the format allows, since a block that crosses into the next series has wide
/// deltas.
const DELTA_BLOCK_VALUES: usize = 128;
/// Deltas per miniblock. Each miniblock has its own bit width.
const MINIBLOCK_VALUES: usize = 32;

/// A column chunk in progress: one column of one row group.
pub(crate) struct ColumnChunkWriter {
    column: ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    encodings: Vec<Encoding>,
    compression: Compression,
    /// Size of the pages without compression, headers included, in bytes.
    uncompressed: usize,
    locations: Vec<PageLocation>,
}

/// A written page.
struct PageLocation {
    offset: i64,
    bytes: i32,
    rows: i64,
    bounds: Option<(i64, i64)>,
}

/// A page to write.
pub(crate) struct EncodedPage<'a> {
    pub(crate) rows: usize,
    pub(crate) encoding: Encoding,
    /// Definition levels, if the column is nullable, and values.
    pub(crate) encoded: &'a [u8],
    /// Minimum and maximum, if readers may skip pages by them.
    pub(crate) bounds: Option<(i64, i64)>,
}

/// Compresses pages; `None` leaves them uncompressed.
pub(crate) type PageCompressor<'a> = Option<&'a mut Compressor<'static>>;

impl ColumnChunkWriter {
    pub(crate) fn new(column: ColumnDescPtr, compression: Compression) -> Self {
        let sink = TrackedWrite::new(Vec::new());
        Self { column, sink, encodings: Vec::new(), compression, uncompressed: 0, locations: Vec::new() }
    }

    /// Appends a page.
    pub(crate) fn write_page(&mut self, values: &EncodedPage<'_>, compressor: PageCompressor<'_>) -> Result<(), Error> {
        let page = Page::DataPage {
            buf: compress(values.encoded, compressor)?,
            num_values: page_value_count(values.rows)?,
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
        self.locations.push(PageLocation {
            offset: written.offset as i64,
            bytes: written.compressed_size as i32,
            rows: values.rows as i64,
            bounds: values.bounds,
        });
        Ok(())
    }

    /// Returns the column chunk and its footer metadata. The dictionary (fixed-size values, `PLAIN`) is complete only
    /// now, but is placed first.
    pub(crate) fn close(
        mut self,
        dictionary: Option<(&[u8], usize)>,
        compressor: PageCompressor<'_>,
    ) -> Result<(Bytes, ColumnCloseResult), Error> {
        let mut start = TrackedWrite::new(Vec::new());
        if let Some((values, entries)) = dictionary {
            let buf = compress(values, compressor)?;
            let page = Page::DictionaryPage {
                buf,
                num_values: page_value_count(entries)?,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let page = CompressedPage::new(page, values.len());
            self.uncompressed += SerializedPageWriter::new(&mut start).write_page(page)?.uncompressed_size;
            self.encodings.push(Encoding::PLAIN);
        }
        let mut bytes = start.into_inner()?;
        let shift = bytes.len() as i64;
        bytes.extend_from_slice(&self.sink.into_inner()?);
        let has_levels = self.column.max_def_level() > 0;
        self.encodings.extend(has_levels.then_some(Encoding::RLE));
        let rows: i64 = self.locations.iter().map(|page| page.rows).sum();
        let mut metadata = ColumnChunkMetaData::builder(self.column.clone())
            .set_compression(self.compression)
            .set_encodings(self.encodings)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(rows)
            .set_data_page_offset(shift)
            .set_dictionary_page_offset(dictionary.map(|_| 0));
        let bounds: Option<Vec<_>> = self.locations.iter().map(|page| page.bounds).collect();
        let bounds = bounds.filter(|bounds| !bounds.is_empty());
        if let Some(bounds) = &bounds {
            let low = bounds.iter().map(|(low, _)| *low).min();
            let high = bounds.iter().map(|(_, high)| *high).max();
            metadata = metadata.set_statistics(Statistics::int64(low, high, None, Some(0), false));
        }
        let mut offsets = OffsetIndexBuilder::new();
        for page in &self.locations {
            offsets.append_offset_and_size(page.offset + shift, page.bytes);
            offsets.append_row_count(page.rows);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: bounds.map(|bounds| column_index(&bounds).build()).transpose()?,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes.into(), close))
    }
}

/// Builds the column index from the bounds of each page.
fn column_index(bounds: &[(i64, i64)]) -> ColumnIndexBuilder {
    let mut column_index = ColumnIndexBuilder::new(Type::INT64);
    for (low, high) in bounds {
        column_index.append(false, low.to_le_bytes().into(), high.to_le_bytes().into(), 0);
    }
    if bounds.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1) {
        column_index.set_boundary_order(BoundaryOrder::ASCENDING);
    }
    column_index
}

fn compress(values: &[u8], compressor: PageCompressor<'_>) -> Result<Bytes, Error> {
    let failed = |error| ParquetError::External(Box::new(error));
    Ok(match compressor {
        Some(compressor) => compressor.compress(values).map_err(failed)?.into(),
        None => Bytes::copy_from_slice(values),
    })
}

fn page_value_count(values: usize) -> Result<u32, Error> {
    u32::try_from(values).map_err(|_| ParquetError::General("too many values for a page".to_owned()).into())
}

/// Encodes which values of a nullable column are present: one bit per value, after the size of the levels.
pub(crate) fn encode_definition_levels(is_present: &[bool], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    let present_count = is_present.iter().filter(|is_present| **is_present).count();
    if present_count == is_present.len() || present_count == 0 {
        write_rle_run(u16::from(present_count > 0), is_present.len(), 1, out);
    } else {
        let levels: Vec<u16> = is_present.iter().map(|is_present| u16::from(*is_present)).collect();
        encode_rle_bit_packed(&levels, 1, out);
    }
    let size = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&size.to_le_bytes());
}

/// Encodes indices into a dictionary with this number of entries, after their bit width.
pub(crate) fn encode_dictionary_indices(indices: &[u16], entries: usize, out: &mut Vec<u8>) {
    let width = (usize::BITS - entries.saturating_sub(1).leading_zeros()).max(1);
    out.push(width as u8);
    encode_rle_bit_packed(indices, width, out);
}

/// Encodes small numbers of a bit width as runs of one value where possible, else bit-packed in groups of eight.
fn encode_rle_bit_packed(values: &[u16], width: u32, out: &mut Vec<u8>) {
    // Values from `open` to `position` are not written yet.
    let (mut open, mut position) = (0, 0);
    while let Some(value) = values.get(position) {
        let length = values[position..].iter().take_while(|next| *next == value).count();
        // Bit-packed groups are whole: part of a run may have to fill the last group.
        let fill = (position - open).next_multiple_of(8) - (position - open);
        if length >= fill + 8 {
            write_bit_packed_groups(&values[open..position + fill], width, out);
            write_rle_run(*value, length - fill, width, out);
            open = position + length;
        }
        position += length;
    }
    write_bit_packed_groups(&values[open..], width, out);
}

/// Writes a run of one value.
fn write_rle_run(value: u16, length: usize, width: u32, out: &mut Vec<u8>) {
    write_varint((length as u64) << 1, out);
    out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
}

/// Writes bit-packed groups of eight, zero-padded.
fn write_bit_packed_groups(values: &[u16], width: u32, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    write_varint((groups as u64) << 1 | 1, out);
    for group in values.chunks(8) {
        let packed = group.iter().rev().fold(0_u128, |packed, value| packed << width | u128::from(*value));
        // The first value is in the lowest bits, also in a short group.
        out.extend_from_slice(&packed.to_le_bytes()[..width as usize]);
    }
}

/// Encodes integers as `DELTA_BINARY_PACKED`.
pub(crate) fn encode_deltas(values: &[i64], out: &mut Vec<u8>) {
    write_varint(DELTA_BLOCK_VALUES as u64, out);
    write_varint((DELTA_BLOCK_VALUES / MINIBLOCK_VALUES) as u64, out);
    write_varint(values.len() as u64, out);
    let Some((first, rest)) = values.split_first() else { return write_varint(0, out) };
    write_zigzag(*first, out);
    let mut last = *first;
    let mut block = [0_i64; DELTA_BLOCK_VALUES];
    for values in rest.chunks(DELTA_BLOCK_VALUES) {
        let deltas = &mut block[..values.len()];
        let before = std::iter::once(last).chain(values.iter().copied());
        for ((delta, value), before) in deltas.iter_mut().zip(values).zip(before) {
            *delta = value.wrapping_sub(before);
        }
        last = values.last().copied().unwrap_or(last);
        let step = deltas.first().copied().unwrap_or_default();
        if deltas.iter().fold(0, |other, delta| other | (delta ^ step)) == 0 {
            // Even steps: the usual case for series, times and offsets.
            write_zigzag(step, out);
            out.extend([0; DELTA_BLOCK_VALUES / MINIBLOCK_VALUES]);
            continue;
        }
        let min_delta = deltas.iter().copied().min().unwrap_or_default();
        write_zigzag(min_delta, out);
        let widths = out.len();
        out.extend([0; DELTA_BLOCK_VALUES / MINIBLOCK_VALUES]);
        for (index, miniblock) in deltas.chunks(MINIBLOCK_VALUES).enumerate() {
            let mut relative = [0_u64; MINIBLOCK_VALUES];
            let mut used_bits = 0;
            for (relative, delta) in relative.iter_mut().zip(miniblock) {
                *relative = delta.wrapping_sub(min_delta).cast_unsigned();
                used_bits |= *relative;
            }
            let width = u64::BITS - used_bits.leading_zeros();
            out[widths + index] = width as u8;
            bit_pack_miniblock(&relative, width, out);
        }
    }
}

/// Bit-packs a miniblock, the first value in the lowest bits.
fn bit_pack_miniblock(values: &[u64; MINIBLOCK_VALUES], width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    // One spare word, so that a value can always spill into the next.
    let mut words = [0_u64; MINIBLOCK_VALUES + 1];
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

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_zigzag(value: i64, out: &mut Vec<u8>) {
    write_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
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

    /// A file of two columns, with one page per list.
    fn file(pages: &[Vec<(i64, Option<u16>)>], is_compressed: bool) -> Bytes {
        let schema = Arc::new(parse_message_type("message m { required int64 a; optional int64 b; }").unwrap());
        let columns = SchemaDescriptor::new(Arc::clone(&schema));
        let compression = if is_compressed { Compression::ZSTD(Default::default()) } else { Compression::UNCOMPRESSED };
        let mut chunks = [0, 1].map(|index| ColumnChunkWriter::new(columns.column(index), compression));
        let mut compressor = is_compressed.then(|| Compressor::new(1).unwrap());
        for page in pages {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            let all: Vec<i64> = page.iter().map(|(a, _)| *a).collect();
            encode_deltas(&all, &mut a);
            encode_definition_levels(&page.iter().map(|(_, b)| b.is_some()).collect::<Vec<_>>(), &mut b);
            encode_dictionary_indices(
                &page.iter().filter_map(|(_, b)| *b).collect::<Vec<_>>(),
                DICTIONARY.len(),
                &mut b,
            );
            let bounds = all.iter().min().copied().zip(all.iter().max().copied());
            let (rows, encodings) = (page.len(), [Encoding::DELTA_BINARY_PACKED, Encoding::RLE_DICTIONARY]);
            for ((chunk, encoded), (encoding, bounds)) in
                chunks.iter_mut().zip([&a, &b]).zip(encodings.into_iter().zip([bounds, None]))
            {
                chunk.write_page(&EncodedPage { rows, encoding, encoded, bounds }, compressor.as_mut()).unwrap();
            }
        }
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default())).unwrap();
        let mut group = file.next_row_group().unwrap();
        let entries: Vec<u8> = DICTIONARY.into_iter().flat_map(i64::to_le_bytes).collect();
        for (chunk, dictionary) in chunks.into_iter().zip([None, Some((entries.as_slice(), DICTIONARY.len()))]) {
            let (bytes, close) = chunk.close(dictionary, compressor.as_mut()).unwrap();
            group.append_column(&bytes, close).unwrap();
        }
        group.close().unwrap();
        file.into_inner().unwrap().into()
    }

    fn read(file: Bytes) -> Vec<(i64, Option<i64>)> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let rows = reader.flat_map(|batch| {
            let batch = batch.unwrap();
            let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
            column(0).into_iter().map(Option::unwrap).zip(column(1)).collect::<Vec<_>>()
        });
        rows.collect()
    }

    /// Short and long runs of one dictionary entry or null, and integers close together or anywhere.
    fn page() -> impl Strategy<Value = Vec<(i64, Option<u16>)>> {
        let near = (any::<i64>(), prop_oneof![Just(1_i64), Just(1 << 20), Just(1 << 62)]);
        let run = (near, prop::option::weighted(0.8, 0_u16..5), prop_oneof![1_usize..12, 1_usize..700]);
        prop::collection::vec(run, 1..12).prop_map(|runs| {
            let run = |((start, step), entry, length): ((i64, i64), Option<u16>, usize)| {
                (0..length as i64)
                    .map(move |index| (start.wrapping_add(index.wrapping_mul(index).wrapping_mul(step)), entry))
            };
            runs.into_iter().flat_map(run).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn library_reader_reads_back_encoded_pages(pages in prop::collection::vec(page(), 1..4), is_compressed: bool) {
            let entry = |index: u16| DICTIONARY[usize::from(index)];
            let expected: Vec<_> = pages.iter().flatten().map(|(a, b)| (*a, b.map(entry))).collect();
            prop_assert_eq!(read(file(&pages, is_compressed)), expected);
        }
    }
}
