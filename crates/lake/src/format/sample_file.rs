//! Writes and reads the files of `silver.samples`.
//!
//! ```text
//! series_id  i64        dense and sorted
//! ts         µs UTC     sorted within a series
//! mantissa   i64        value = mantissa / 10^exponent, where that is exact
//! exponent   i8         one per run, so run-length coding is effective
//! value      f64        where it is not exact: -0, NaN, infinities, values that use all bits
//! offset     i64        bus offset at which the flush ended; of two samples at one time the higher offset wins
//! ```
//!
//! Tenant and day are the table's partitions and are not in the file. Files are sorted by series and time, and their
//! pages are small, so that reading one series out of a hundred thousand costs a page or two.

use std::sync::Arc;

#[cfg(test)]
use bytes::Bytes;
use deltalake_core::arrow::array::{
    Array, Float64Array, Int8Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
#[cfg(test)]
use deltalake_core::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake_core::parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use deltalake_core::parquet::file::writer::SerializedFileWriter;
use wardroom_domain::{Sample, TenantId, Timestamp};

use crate::error::Error;
use crate::format::checksums::{FinishedFile, finish_file};
use crate::format::data_file::{DataFile, FilePurpose, writer_properties};
use crate::format::decimal::POWERS_OF_TEN;
use crate::format::sample_row_group::SampleRowGroup;
use crate::format::table_schemas::SAMPLES;

/// Number of rows at which a file is closed.
pub(crate) const MAX_FILE_ROWS: usize = 8 << 20;
/// Files that span at least this much time are not merged again, in ms.
pub(crate) const LONG_FILE_SPAN_MS: i64 = 6 * 3_600_000;

/// A row of `silver.samples`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleRow {
    /// Id of the series in the lake.
    pub(crate) series_id: i64,
    /// Time and value.
    pub(crate) sample: Sample,
    /// Bus offset at which the flush ended.
    pub(crate) offset: i64,
}

/// Writes one file. Series ids and, within a series, times must ascend.
pub(crate) struct SampleFileWriter {
    tenant: TenantId,
    day: i64,
    file: SerializedFileWriter<Vec<u8>>,
    row_group: SampleRowGroup,
    rows: usize,
    series_range: Option<(i64, i64)>,
    span_ms: Option<(i64, i64)>,
}

impl SampleFileWriter {
    /// Creates an empty file for a tenant and a day (days since the epoch).
    pub(crate) fn new(tenant: TenantId, day: i64, purpose: FilePurpose) -> Result<Self, Error> {
        let schema = SAMPLES.arrow_schema();
        let columns = Arc::new(ArrowSchemaConverter::new().convert(&schema)?);
        let mut properties = writer_properties(purpose)?.build();
        add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        let file = SerializedFileWriter::new(Vec::new(), columns.root_schema_ptr(), Arc::new(properties))?;
        let row_group = SampleRowGroup::new(columns, purpose)?;
        Ok(Self { tenant, day, file, row_group, rows: 0, series_range: None, span_ms: None })
    }

    /// Appends a run of one series: samples with their offsets, ascending by time. Series ids must not decrease.
    pub(crate) fn push(&mut self, series_id: i64, run: &[(Sample, i64)]) -> Result<(), Error> {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { return Ok(()) };
        debug_assert!(self.series_range.is_none_or(|(_, last)| last <= series_id), "series ascend");
        self.series_range = Some((self.series_range.map_or(series_id, |(low, _)| low), series_id));
        let (low, high) = self.span_ms.unwrap_or((first.ts_ms, last.ts_ms));
        self.span_ms = Some((low.min(first.ts_ms), high.max(last.ts_ms)));
        self.rows += run.len();
        self.row_group.push(series_id, run)?;
        if self.row_group.is_full() {
            self.row_group.close(&mut self.file)?;
        }
        Ok(())
    }

    /// Number of rows so far.
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    /// Closes the file.
    pub(crate) fn finish(mut self) -> Result<DataFile, Error> {
        self.row_group.close(&mut self.file)?;
        let FinishedFile { bytes, tail_start } = finish_file(self.file)?;
        let (low, high) = self.series_range.unwrap_or_default();
        let (start_ms, end_ms) = self.span_ms.unwrap_or_default();
        let rfc3339 = |ms: i64| Timestamp::from_millis(ms).to_string();
        let stats = serde_json::json!({
            "numRecords": self.rows,
            "minValues": { "series_id": low, "ts": rfc3339(start_ms) },
            "maxValues": { "series_id": high, "ts": rfc3339(end_ms) },
            "nullCount": { "series_id": 0, "ts": 0, "offset": 0 },
        });
        Ok(DataFile { tenant: self.tenant, day: self.day, bytes, tail_start, stats })
    }
}

/// Returns all rows of a file.
#[cfg(test)]
pub(crate) fn read_sample_file(bytes: Bytes) -> Result<Vec<SampleRow>, Error> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
    let mut rows = Vec::new();
    for batch in reader {
        decode_sample_rows(&batch?, &mut rows)?;
    }
    Ok(rows)
}

/// Appends the rows of a batch with the columns of `silver.samples`.
pub(crate) fn decode_sample_rows(batch: &RecordBatch, rows: &mut Vec<SampleRow>) -> Result<(), Error> {
    fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, Error> {
        let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
        column.ok_or_else(|| Error::Damaged(format!("silver.samples: column {name} is missing or has another type")))
    }
    let series: &Int64Array = column(batch, "series_id")?;
    let ts: &TimestampMicrosecondArray = column(batch, "ts")?;
    let mantissas: &Int64Array = column(batch, "mantissa")?;
    let exponents: &Int8Array = column(batch, "exponent")?;
    let values: &Float64Array = column(batch, "value")?;
    let offsets: &Int64Array = column(batch, "offset")?;
    rows.reserve(batch.num_rows());
    for row in 0..batch.num_rows() {
        let value = if mantissas.is_valid(row) {
            let power = usize::try_from(exponents.value(row)).ok().and_then(|exponent| POWERS_OF_TEN.get(exponent));
            let power = power.ok_or_else(|| Error::Damaged("silver.samples: exponent outside 0 to 22".into()))?;
            mantissas.value(row) as f64 / power
        } else {
            values.value(row)
        };
        let sample = Sample { ts_ms: ts.value(row).div_euclid(1000), value };
        rows.push(SampleRow { series_id: series.value(row), sample, offset: offsets.value(row) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(runs: &[(i64, Vec<(Sample, i64)>)]) -> DataFile {
        let mut file = SampleFileWriter::new(TenantId::main(), 0, FilePurpose::LongLived).unwrap();
        runs.iter().for_each(|(series, run)| file.push(*series, run).unwrap());
        file.finish().unwrap()
    }

    fn bits(rows: &[SampleRow]) -> Vec<(i64, i64, u64, i64)> {
        rows.iter().map(|row| (row.series_id, row.sample.ts_ms, row.sample.value.to_bits(), row.offset)).collect()
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-1_000_000_i64..1_000_000, 0_i32..7).prop_map(|(m, e)| m as f64 / 10_f64.powi(e)),
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => (1_u64..1 << 51).prop_map(|payload| f64::from_bits(0x7ff0_0000_0000_0000 | payload)),
            1 => prop::sample::select(vec![
                -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1e308, 5e-324, f64::MIN_POSITIVE / 2.0,
                9_007_199_254_740_993.0, 9_007_199_254_740_994.0, 18_446_744_073_709_551_615.0,
            ]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn reads_back_every_bit(runs in prop::collection::vec(
            prop::collection::vec((1_i64..100_000, any_value()), 1..50), 1..20)) {
            let mut all = Vec::new();
            for (series, run) in (0..).zip(&runs) {
                let mut ts_ms = 1_795_255_038_178;
                let run: Vec<_> = run.iter().map(|(step, value)| {
                    ts_ms += step;
                    (Sample { ts_ms, value: *value }, series * 7)
                }).collect();
                all.push((series, run));
            }
            let expected: Vec<SampleRow> = all.iter().flat_map(|(series_id, run)| {
                run.iter().map(|(sample, offset)| SampleRow { series_id: *series_id, sample: *sample, offset: *offset })
            }).collect();
            let file = file(&all);
            prop_assert_eq!(&file.stats["numRecords"], expected.len());
            prop_assert_eq!(bits(&read_sample_file(file.bytes).unwrap()), bits(&expected));
        }
    }

    /// Spark 3.5 rejects a file with an unknown encoding in any column.
    #[test]
    fn uses_only_widely_supported_encodings() {
        use deltalake_core::parquet::basic::Encoding::{DELTA_BINARY_PACKED, PLAIN, RLE, RLE_DICTIONARY};

        let run = (0..50_000).map(|step| {
            let value = if step % 3 == 0 {
                f64::from_bits((step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            } else {
                step as f64 / 10.0
            };
            (Sample { ts_ms: step * 1000, value }, step / 1000)
        });
        let file = file(&[(1, run.collect())]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes).unwrap();
        for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            for encoding in column.encodings() {
                let known = [PLAIN, RLE, RLE_DICTIONARY, DELTA_BINARY_PACKED].contains(&encoding);
                assert!(known, "{}: {encoding:?}", column.column_path());
            }
        }
    }

    #[test]
    fn packs_typical_exporter_values_in_about_two_bytes() {
        // 40 counters, 40 gauges of one decimal and 20 of three in a hundred series, a step every 15 s.
        let runs: Vec<_> = (0..500_i64)
            .map(|series| {
                let run = (0..400_i64).map(|step| {
                    let noise = (series * 7919 + step * 104_729) % 1009;
                    let value = match series % 5 {
                        0 | 1 => (step * 50 + noise % 20) as f64,
                        2 | 3 => (noise % 300) as f64 / 10.0,
                        _ => noise as f64 / 1000.0,
                    };
                    (Sample { ts_ms: 1_795_255_038_000 + step * 15_000, value }, 7 + step / 40)
                });
                (series, run.collect())
            })
            .collect();
        let file = file(&runs);
        let bytes_per_sample = file.bytes.len() as f64 / 200_000.0;
        assert!(bytes_per_sample < 2.2, "{bytes_per_sample} bytes a sample");
        assert_eq!(file.stats["minValues"]["series_id"], 0);
        assert_eq!(file.stats["maxValues"]["ts"], Timestamp::from_millis(1_795_255_038_000 + 399 * 15_000).to_string());
    }
}
