//! Reads a sorted file of samples series by series.

use deltalake_core::parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use deltalake_core::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use deltalake_core::parquet::file::page_index::column_index::ColumnIndexMetaData;
use deltalake_core::parquet::file::reader::ChunkReader;
use wardroom_domain::Sample;

use crate::error::Error;
use crate::format::sample_file::{SampleRow, decode_sample_rows};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;

/// A file of samples that is read series by series.
pub(crate) struct SortedRun {
    reader: ParquetRecordBatchReader,
    rows: Vec<SampleRow>,
    next_row: usize,
}

impl SortedRun {
    /// Opens the whole file, or only the pages that may hold one of these series (ascending).
    pub(crate) fn open<R: ChunkReader + 'static>(file: R, series: Option<&[i64]>) -> Result<Self, Error> {
        // With the index the reader asks for whole pages, not for headers first, which are read in blocks as well.
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let mut builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?.with_batch_size(BATCH_ROWS);
        if let Some((groups, rows)) = series.and_then(|series| select_pages(builder.metadata(), series)) {
            builder = builder.with_row_groups(groups).with_row_selection(rows);
        }
        Ok(Self { reader: builder.build()?, rows: Vec::new(), next_row: 0 })
    }

    /// Returns the series of the next row.
    pub(crate) fn next_series(&mut self) -> Result<Option<i64>, Error> {
        while self.next_row == self.rows.len() {
            self.rows.clear();
            self.next_row = 0;
            match self.reader.next() {
                Some(batch) => decode_sample_rows(&batch?, &mut self.rows)?,
                None => return Ok(None),
            }
        }
        Ok(self.rows.get(self.next_row).map(|row| row.series_id))
    }

    /// Appends all next rows of this series.
    pub(crate) fn take_series(&mut self, series: i64, all: &mut Vec<(Sample, i64)>) -> Result<(), Error> {
        while self.next_series()? == Some(series) {
            let rest = &self.rows[self.next_row..];
            let count = rest.iter().take_while(|row| row.series_id == series).count();
            all.extend(rest[..count].iter().map(|row| (row.sample, row.offset)));
            self.next_row += count;
        }
        Ok(())
    }
}

/// Selects the row groups with pages that may hold one of these series, and those pages' rows within the selected
/// groups. Returns `None` if the file has no page index. Unneeded row groups are left out because each costs
/// decompressors.
fn select_pages(file: &ParquetMetaData, series: &[i64]) -> Option<(Vec<usize>, RowSelection)> {
    let mut columns = file.file_metadata().schema_descr().columns().iter();
    let column = columns.position(|column| column.name() == "series_id")?;
    let (bounds, places) = (file.column_index()?, file.offset_index()?);
    let (mut groups, mut selected, mut start) = (Vec::new(), Vec::new(), 0);
    for (index, (group, (bounds, places))) in file.row_groups().iter().zip(bounds.iter().zip(places)).enumerate() {
        let (before, end) = (selected.len(), start + usize::try_from(group.num_rows()).ok()?);
        let ColumnIndexMetaData::INT64(bounds) = bounds.get(column)? else { return None };
        let firsts = places.get(column)?.page_locations().iter().map(|page| page.first_row_index);
        let firsts: Vec<_> = firsts.map(|first| usize::try_from(first).ok()).collect::<Option<_>>()?;
        for (page, first) in firsts.iter().enumerate() {
            let (low, high) = (*bounds.min_values().get(page)?, *bounds.max_values().get(page)?);
            let next = series.partition_point(|series| *series < low);
            if series.get(next).is_some_and(|series| *series <= high) {
                selected.push(start + first..firsts.get(page + 1).map_or(end, |next| start + next));
            }
        }
        if selected.len() > before {
            groups.push(index);
            start = end;
        }
    }
    Some((groups, RowSelection::from_consecutive_ranges(selected.into_iter(), start)))
}

/// Sorts by time, and keeps the sample with the highest offset of those at one time.
pub(crate) fn keep_latest(all: &mut Vec<(Sample, i64)>) {
    if all.is_sorted_by(|a, b| a.0.ts_ms < b.0.ts_ms) {
        return;
    }
    all.sort_by_key(|(sample, offset)| (sample.ts_ms, *offset));
    all.dedup_by(|later, earlier| {
        let same = later.0.ts_ms == earlier.0.ts_ms;
        if same {
            *earlier = *later;
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use wardroom_domain::TenantId;

    use super::*;
    use crate::format::data_file::FilePurpose;
    use crate::format::sample_file::SampleFileWriter;

    /// Reading one series out of many costs a page or two. The file has two row groups.
    #[test]
    fn skips_pages_without_the_series() {
        let mut file = SampleFileWriter::new(TenantId::main(), 0, FilePurpose::ShortLived).unwrap();
        for series in (0..4000).map(|series| series * 2) {
            let run: Vec<_> = (0..100).map(|step| (Sample { ts_ms: step * 1000, value: series as f64 }, 7)).collect();
            file.push(series, &run).unwrap();
        }
        let bytes = file.finish().unwrap().bytes;
        for series in [0, 2, 3998, 7998] {
            let mut run = SortedRun::open(bytes.clone(), Some(&[series])).unwrap();
            let (mut read, mut all) = (0, Vec::new());
            while let Some(next) = run.next_series().unwrap() {
                let mut rows = Vec::new();
                run.take_series(next, &mut rows).unwrap();
                read += rows.len();
                all.extend(rows.into_iter().filter(|_| next == series));
            }
            assert_eq!(all.len(), 100, "series {series}");
            assert!(all.iter().all(|(sample, _)| sample.value == series as f64));
            assert!(read <= 50_000, "{read} of 400000 rows for one series");
        }
        let mut both = SortedRun::open(bytes.clone(), Some(&[2, 7998])).unwrap();
        let mut found = Vec::new();
        while let Some(next) = both.next_series().unwrap() {
            let mut rows = Vec::new();
            both.take_series(next, &mut rows).unwrap();
            found.extend([2, 7998].contains(&next).then_some((next, rows.len())));
        }
        assert_eq!(found, [(2, 100), (7998, 100)], "one in each row group");
        let mut empty_run = SortedRun::open(bytes, Some(&[8001])).unwrap();
        assert_eq!(empty_run.next_series().unwrap(), None);
    }
}
