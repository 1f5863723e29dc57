//! A file of samples on its way in, series by series.

use deltalake_core::parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use deltalake_core::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use deltalake_core::parquet::file::page_index::column_index::ColumnIndexMetaData;
use deltalake_core::parquet::file::reader::ChunkReader;
use wardroom_domain::Sample;

use crate::Error;
use crate::samples::{Row, rows_of};

/// Rows read at once.
const READ: usize = 8192;

/// A file on its way in.
pub(crate) struct Run {
    reader: ParquetRecordBatchReader,
    rows: Vec<Row>,
    at: usize,
}

impl Run {
    /// The whole file, or those of its pages that may hold one of these series (ascending).
    pub(crate) fn open<R: ChunkReader + 'static>(file: R, series: Option<&[i64]>) -> Result<Self, Error> {
        let index = if series.is_some() { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
        let options = ArrowReaderOptions::new().with_page_index_policy(index);
        let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?.with_batch_size(READ);
        if let Some((groups, pages)) = series.and_then(|series| pages(builder.metadata(), series)) {
            builder = builder.with_row_groups(groups).with_row_selection(pages);
        }
        Ok(Self { reader: builder.build()?, rows: Vec::new(), at: 0 })
    }

    /// The series of its next row.
    pub(crate) fn series(&mut self) -> Result<Option<i64>, Error> {
        while self.at == self.rows.len() {
            self.rows.clear();
            self.at = 0;
            match self.reader.next() {
                Some(batch) => rows_of(&batch?, &mut self.rows)?,
                None => return Ok(None),
            }
        }
        Ok(self.rows.get(self.at).map(|row| row.series_id))
    }

    /// All of its next rows that are of this series.
    pub(crate) fn take(&mut self, series: i64, all: &mut Vec<(Sample, i64)>) -> Result<(), Error> {
        while self.series()? == Some(series) {
            let rest = &self.rows[self.at..];
            let count = rest.iter().take_while(|row| row.series_id == series).count();
            all.extend(rest[..count].iter().map(|row| (row.sample, row.offset)));
            self.at += count;
        }
        Ok(())
    }
}

/// The row groups with pages that may hold one of these series, and the rows of these pages among theirs; without an answer the
/// file says nothing of its pages. A group that is named costs its decompressors, however little of it is read.
fn pages(file: &ParquetMetaData, series: &[i64]) -> Option<(Vec<usize>, RowSelection)> {
    let mut columns = file.file_metadata().schema_descr().columns().iter();
    let column = columns.position(|column| column.name() == "series_id")?;
    let (bounds, places) = (file.column_index()?, file.offset_index()?);
    let (mut groups, mut wanted, mut start) = (Vec::new(), Vec::new(), 0);
    for (at, (group, (bounds, places))) in file.row_groups().iter().zip(bounds.iter().zip(places)).enumerate() {
        let (before, end) = (wanted.len(), start + usize::try_from(group.num_rows()).ok()?);
        let ColumnIndexMetaData::INT64(bounds) = bounds.get(column)? else { return None };
        let firsts = places.get(column)?.page_locations().iter().map(|page| page.first_row_index);
        let firsts: Vec<_> = firsts.map(|first| usize::try_from(first).ok()).collect::<Option<_>>()?;
        for (page, first) in firsts.iter().enumerate() {
            let (low, high) = (*bounds.min_values().get(page)?, *bounds.max_values().get(page)?);
            let next = series.partition_point(|series| *series < low);
            if series.get(next).is_some_and(|series| *series <= high) {
                wanted.push(start + first..firsts.get(page + 1).map_or(end, |next| start + next));
            }
        }
        if wanted.len() > before {
            groups.push(at);
            start = end;
        }
    }
    Some((groups, RowSelection::from_consecutive_ranges(wanted.into_iter(), start)))
}

#[cfg(test)]
mod tests {
    use wardroom_domain::TenantId;

    use super::*;
    use crate::samples::{SampleFile, Use};

    /// One series out of many costs a page or two, not the file; the file has two row groups.
    #[test]
    fn pages_without_a_series_are_left_out() {
        let mut file = SampleFile::new(TenantId::main(), 0, Use::Flush).unwrap();
        for series in (0..4000).map(|series| series * 2) {
            let run: Vec<_> = (0..100).map(|at| (Sample { ts_ms: at * 1000, value: series as f64 }, 7)).collect();
            file.push(series, &run).unwrap();
        }
        let bytes = file.finish().unwrap().bytes;
        for series in [0, 2, 3998, 7998] {
            let mut run = Run::open(bytes.clone(), Some(&[series])).unwrap();
            let (mut read, mut all) = (0, Vec::new());
            while let Some(next) = run.series().unwrap() {
                let mut some = Vec::new();
                run.take(next, &mut some).unwrap();
                read += some.len();
                all.extend(some.into_iter().filter(|_| next == series));
            }
            assert_eq!(all.len(), 100, "series {series}");
            assert!(all.iter().all(|(sample, _)| sample.value == series as f64));
            assert!(read <= 50_000, "{read} of 400000 rows for one series");
        }
        let mut both = Run::open(bytes.clone(), Some(&[2, 7998])).unwrap();
        let mut found = Vec::new();
        while let Some(next) = both.series().unwrap() {
            let mut some = Vec::new();
            both.take(next, &mut some).unwrap();
            found.extend([2, 7998].contains(&next).then_some((next, some.len())));
        }
        assert_eq!(found, [(2, 100), (7998, 100)], "one in each group");
        let mut nothing = Run::open(bytes, Some(&[8001])).unwrap();
        assert_eq!(nothing.series().unwrap(), None);
    }
}
