//! Many short files of samples become few long ones.
//!
//! Problem: a flush holds some forty steps of each series, and short runs are dear (seven bytes a sample at four
//! steps, under two at sixteen hundred) and slow to read. Model: the files of a tenant's day are sorted runs; once those not yet merged
//! hold [`LONG_MS`], or the day is over, they are merged series by series, each row read and written once. Guarantee: the
//! same rows; only of two samples of a series with one time the one that came later stays.
//!
//! Source: the k-way merge of sorted runs (Knuth, TAOCP 3, 5.4.1).

use std::collections::BTreeMap;

use deltalake_core::parquet::file::reader::ChunkReader;
use wardroom_domain::{Sample, TenantId};

use crate::Error;
use crate::run::Run;
use crate::samples::{DAY_MS, DataFile, FILE_ROWS, SampleFile, Use};
use crate::table::LiveFile;

/// How much of a series a finished file spans at least, in ms.
pub(crate) const LONG_MS: i64 = 6 * 3_600_000;
/// A pause that is longer belongs to no series' stretch, in ms.
const PAUSE_MS: i64 = 3_600_000;
/// How long after its end a day is taken for complete, in ms.
const GRACE_MS: i64 = 15 * 60_000;

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Files that went in.
    pub files_in: usize,
    /// Files that came out.
    pub files_out: usize,
    /// Rows that came out.
    pub rows: u64,
    /// Samples that a later one with their time replaced.
    pub replaced: u64,
    /// Size of what went in, in bytes.
    pub bytes_in: u64,
    /// Size of what came out, in bytes.
    pub bytes_out: u64,
}

impl Merged {
    /// Counts another one.
    pub(crate) fn add(&mut self, other: Self) {
        self.files_in += other.files_in;
        self.files_out += other.files_out;
        self.rows += other.rows;
        self.replaced += other.replaced;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// The files that are to be merged now, group by group. `newest_ms` is the time of the newest sample there is.
pub(crate) fn due(files: &[LiveFile], newest_ms: i64) -> Vec<Vec<LiveFile>> {
    let mut days: BTreeMap<(&TenantId, i64), Vec<&LiveFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.span_ms.1 - file.span_ms.0 < LONG_MS) {
        days.entry((&file.tenant, file.day)).or_default().push(file);
    }
    let ready = |((_, day), short): &((&TenantId, i64), Vec<&LiveFile>)| {
        let over = newest_ms >= (day + 1).saturating_mul(DAY_MS) + GRACE_MS;
        overlap(short) && (covered_ms(short) >= LONG_MS || over)
    };
    days.into_iter().filter(ready).map(|(_, short)| short.into_iter().cloned().collect()).collect()
}

/// How much time files hold, long pauses between them not counted.
fn covered_ms(files: &[&LiveFile]) -> i64 {
    let mut spans: Vec<_> = files.iter().map(|file| file.span_ms).collect();
    spans.sort_unstable();
    let (mut covered, mut end) = (0_i64, i64::MIN);
    for (low, high) in spans {
        let from = if low.saturating_sub(end) <= PAUSE_MS { end } else { low };
        covered += high.saturating_sub(from).max(0);
        end = end.max(high);
    }
    covered
}

/// Whether a merge would change anything: files that follow each other by series, none of which lies in two, are what one leaves,
/// however short the day was.
fn overlap(files: &[&LiveFile]) -> bool {
    let mut ranges: Vec<_> = files.iter().map(|file| file.series).collect();
    ranges.sort_unstable();
    !ranges.is_sorted_by(|a, b| a.1 < b.0)
}

/// Merges runs of one tenant and day, and hands over each file as it is finished.
pub(crate) fn merge<R: ChunkReader + 'static>(
    tenant: &TenantId,
    day: i64,
    runs: Vec<R>,
    mut finished: impl FnMut(DataFile) -> Result<(), Error>,
) -> Result<Merged, Error> {
    let mut done = Merged { files_in: runs.len(), ..Merged::default() };
    let mut runs = runs.into_iter().map(|run| Run::open(run, None)).collect::<Result<Vec<_>, _>>()?;
    let mut finish = |file: SampleFile, done: &mut Merged| {
        let file = file.finish()?;
        done.files_out += 1;
        done.bytes_out += file.bytes.len() as u64;
        finished(file)
    };
    let mut file = SampleFile::new(tenant.clone(), day, Use::Stay)?;
    let mut all: Vec<(Sample, i64)> = Vec::new();
    loop {
        let mut least = None;
        for run in &mut runs {
            least = least.into_iter().chain(run.series()?).min();
        }
        let Some(series) = least else { break };
        all.clear();
        for run in &mut runs {
            run.take(series, &mut all)?;
        }
        let read = all.len();
        settle(&mut all);
        done.replaced += (read - all.len()) as u64;
        done.rows += all.len() as u64;
        file.push(series, &all)?;
        if file.rows() >= FILE_ROWS {
            finish(std::mem::replace(&mut file, SampleFile::new(tenant.clone(), day, Use::Stay)?), &mut done)?;
        }
    }
    if file.rows() > 0 {
        finish(file, &mut done)?;
    }
    Ok(done)
}

/// By time, and of several with one time the one that came last.
pub(crate) fn settle(all: &mut Vec<(Sample, i64)>) {
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
    use proptest::prelude::*;

    use super::*;
    use crate::samples::read;

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
    fn files_are_merged_when_they_span_six_hours_or_their_day_is_over() {
        let minutes = |from: i64, to: i64| file(0, from * 60_000, to * 60_000);
        let short = [minutes(0, 10), minutes(10, 20)];
        assert!(due(&short, 20 * 60_000).is_empty());
        assert_eq!(due(&short, DAY_MS + GRACE_MS).len(), 1, "the day is over");
        assert!(due(&short[..1], DAY_MS + GRACE_MS).is_empty(), "nothing to merge it with");
        let long = [minutes(0, 200), minutes(190, 250), minutes(310, 361), minutes(0, 400)];
        let groups = due(&long, 361 * 60_000);
        assert_eq!(groups, [long[..3].to_vec()], "a long one is left alone");
        let apart = [minutes(0, 10), minutes(200, 210), minutes(350, 361)];
        assert!(due(&apart, 361 * 60_000).is_empty(), "half an hour in three pieces");
        let [mut first, mut second] = short;
        (first.series, second.series) = ((1, 600), (601, 900));
        assert!(due(&[first, second], DAY_MS + GRACE_MS).is_empty(), "what a merge left of a short day");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_merge_holds_the_same_rows_and_the_latest_of_those_with_one_time(
            runs in prop::collection::vec(prop::collection::btree_map((0_i64..6, 0_i64..40), any::<u64>(), 0..60), 1..6)
        ) {
            let mut expected = BTreeMap::new();
            let mut files = Vec::new();
            for (run, offset) in runs.iter().zip(10..) {
                let mut file = SampleFile::new(TenantId::main(), 0, Use::Flush).unwrap();
                for series in 0..6 {
                    let own: Vec<_> = run.range((series, 0)..(series, 40)).map(|((_, ts_ms), bits)| {
                        expected.insert((series, *ts_ms), (*bits, offset));
                        (Sample { ts_ms: *ts_ms, value: f64::from_bits(*bits) }, offset)
                    }).collect();
                    file.push(series, &own).unwrap();
                }
                files.push(file.finish().unwrap().bytes);
            }
            let total: usize = runs.iter().map(BTreeMap::len).sum();
            let mut out = Vec::new();
            let done = merge(&TenantId::main(), 0, files, |file| { out.push(file); Ok(()) }).unwrap();
            prop_assert_eq!(done.files_out, out.len());
            let rows: Vec<_> = out.into_iter().flat_map(|file| read(file.bytes).unwrap()).collect();
            let got: BTreeMap<_, _> =
                rows.iter().map(|row| ((row.series_id, row.sample.ts_ms), (row.sample.value.to_bits(), row.offset))).collect();
            prop_assert_eq!(rows.len(), got.len());
            prop_assert_eq!(done.replaced as usize, total - got.len());
            prop_assert_eq!(got, expected);
        }
    }
}
