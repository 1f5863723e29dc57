//! Merges many short files of samples into few long ones.
//!
//! Problem: a flush holds some forty steps of each series, and short runs are expensive (seven bytes a sample at four
//! steps, under two at sixteen hundred) and slow to read. Model: the files of a tenant's day are sorted runs. Once
//! those not yet merged span [`LONG_FILE_SPAN_MS`], or the day is over, they are merged series by series; each row is
//! read and written once. Guarantee: the same rows, except that of several samples of a series at one time only the
//! latest is kept.
//!
//! Source: the k-way merge of sorted runs (Knuth, TAOCP 3, 5.4.1).

use std::collections::BTreeMap;

use deltalake_core::parquet::file::reader::ChunkReader;
use wardroom_domain::{Sample, TenantId};

use crate::error::Error;
use crate::format::data_file::{DAY_MS, DataFile, FilePurpose};
use crate::format::sample_file::{LONG_FILE_SPAN_MS, MAX_FILE_ROWS, SampleFileWriter};
use crate::format::sorted_run::{SortedRun, keep_latest};
use crate::maintain::maintenance_report::MaintenanceReport;
use crate::table::live_file::LiveFile;

/// A longer gap between files does not count as covered time, in ms.
const MAX_GAP_MS: i64 = 3_600_000;
/// A day counts as over this long after its end, in ms.
const DAY_END_GRACE_MS: i64 = 15 * 60_000;

/// Returns the groups of files that are due for a merge. `newest_ms` is the time of the newest sample of all.
pub(crate) fn files_to_merge(files: &[LiveFile], newest_ms: i64) -> Vec<Vec<LiveFile>> {
    let mut days: BTreeMap<(&TenantId, i64), Vec<&LiveFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.span_ms.1 - file.span_ms.0 < LONG_FILE_SPAN_MS) {
        days.entry((&file.tenant, file.day)).or_default().push(file);
    }
    let ready = |((_, day), short): &((&TenantId, i64), Vec<&LiveFile>)| {
        let day_is_over = newest_ms >= (day + 1).saturating_mul(DAY_MS) + DAY_END_GRACE_MS;
        series_overlap(short) && (covered_ms(short) >= LONG_FILE_SPAN_MS || day_is_over)
    };
    days.into_iter().filter(ready).map(|(_, short)| short.into_iter().cloned().collect()).collect()
}

/// Returns the time that the files cover, without gaps longer than [`MAX_GAP_MS`].
fn covered_ms(files: &[&LiveFile]) -> i64 {
    let mut spans: Vec<_> = files.iter().map(|file| file.span_ms).collect();
    spans.sort_unstable();
    let (mut covered, mut end) = (0_i64, i64::MIN);
    for (low, high) in spans {
        let from = if low.saturating_sub(end) <= MAX_GAP_MS { end } else { low };
        covered += high.saturating_sub(from).max(0);
        end = end.max(high);
    }
    covered
}

/// Returns whether a merge would change anything. Files with disjoint ranges of series are the result of a merge.
fn series_overlap(files: &[&LiveFile]) -> bool {
    let mut ranges: Vec<_> = files.iter().map(|file| file.series).collect();
    ranges.sort_unstable();
    !ranges.is_sorted_by(|a, b| a.1 < b.0)
}

/// Merges sorted runs of one tenant and day, and passes each finished file to `finished`.
pub(crate) fn merge_sample_files<R: ChunkReader + 'static>(
    tenant: &TenantId,
    day: i64,
    runs: Vec<R>,
    mut finished: impl FnMut(DataFile) -> Result<(), Error>,
) -> Result<MaintenanceReport, Error> {
    let mut report = MaintenanceReport { files_in: runs.len(), ..MaintenanceReport::default() };
    let mut runs = runs.into_iter().map(|run| SortedRun::open(run, None)).collect::<Result<Vec<_>, _>>()?;
    let mut finish = |file: SampleFileWriter, report: &mut MaintenanceReport| {
        let file = file.finish()?;
        report.files_out += 1;
        finished(file)
    };
    let mut file = SampleFileWriter::new(tenant.clone(), day, FilePurpose::LongLived)?;
    let mut all: Vec<(Sample, i64)> = Vec::new();
    loop {
        let mut next = None;
        for run in &mut runs {
            next = next.into_iter().chain(run.next_series()?).min();
        }
        let Some(series) = next else { break };
        all.clear();
        for run in &mut runs {
            run.take_series(series, &mut all)?;
        }
        keep_latest(&mut all);
        report.rows += all.len() as u64;
        file.push(series, &all)?;
        if file.rows() >= MAX_FILE_ROWS {
            finish(
                std::mem::replace(&mut file, SampleFileWriter::new(tenant.clone(), day, FilePurpose::LongLived)?),
                &mut report,
            )?;
        }
    }
    if file.rows() > 0 {
        finish(file, &mut report)?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::sample_file::{SampleRow, read_sample_file};

    fn file(day: i64, start_ms: i64, end_ms: i64) -> LiveFile {
        LiveFile {
            path: format!("{start_ms}"),
            tenant: TenantId::main(),
            day,
            bytes: 1,
            rows: 1,
            series: (1, 2),
            span_ms: (start_ms, end_ms),
            written_ms: 0,
            offset: 1,
        }
    }

    #[test]
    fn merges_files_once_they_span_six_hours_or_the_day_is_over() {
        let minutes = |from: i64, to: i64| file(0, from * 60_000, to * 60_000);
        let short = [minutes(0, 10), minutes(10, 20)];
        assert!(files_to_merge(&short, 20 * 60_000).is_empty());
        assert_eq!(files_to_merge(&short, DAY_MS + DAY_END_GRACE_MS).len(), 1, "the day is over");
        assert!(files_to_merge(&short[..1], DAY_MS + DAY_END_GRACE_MS).is_empty(), "a single file");
        let long = [minutes(0, 200), minutes(190, 250), minutes(310, 361), minutes(0, 400)];
        let groups = files_to_merge(&long, 361 * 60_000);
        assert_eq!(groups, [long[..3].to_vec()], "a long file is left out");
        let separated = [minutes(0, 10), minutes(200, 210), minutes(350, 361)];
        assert!(files_to_merge(&separated, 361 * 60_000).is_empty(), "half an hour with long gaps");
        let [mut first, mut second] = short;
        (first.series, second.series) = ((1, 600), (601, 900));
        assert!(
            files_to_merge(&[first, second], DAY_MS + DAY_END_GRACE_MS).is_empty(),
            "the result of a merge of a short day"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn keeps_all_rows_and_the_latest_of_samples_with_equal_times(
            runs in prop::collection::vec(prop::collection::btree_map((0_i64..6, 0_i64..40), any::<u64>(), 0..60), 1..6)
        ) {
            let mut expected = BTreeMap::new();
            let mut files = Vec::new();
            for (run, offset) in runs.iter().zip(10..) {
                let mut file = SampleFileWriter::new(TenantId::main(), 0, FilePurpose::ShortLived).unwrap();
                for series in 0..6 {
                    let series_run: Vec<_> = run.range((series, 0)..(series, 40)).map(|((_, ts_ms), bits)| {
                        expected.insert((series, *ts_ms), (*bits, offset));
                        (Sample { ts_ms: *ts_ms, value: f64::from_bits(*bits) }, offset)
                    }).collect();
                    file.push(series, &series_run).unwrap();
                }
                files.push(file.finish().unwrap().bytes);
            }
            let mut out = Vec::new();
            let report = merge_sample_files(&TenantId::main(), 0, files, |file| { out.push(file); Ok(()) }).unwrap();
            prop_assert_eq!(report.files_out, out.len());
            let rows: Vec<_> = out.into_iter().flat_map(|file| read_sample_file(file.bytes).unwrap()).collect();
            let key_and_value =
                |row: &SampleRow| ((row.series_id, row.sample.ts_ms), (row.sample.value.to_bits(), row.offset));
            let merged: BTreeMap<_, _> = rows.iter().map(key_and_value).collect();
            prop_assert_eq!(rows.len(), merged.len());
            prop_assert_eq!(merged, expected);
        }
    }
}
