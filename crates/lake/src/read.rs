//! Samples out of the tables, for questions about series (decision D4).
//!
//! Problem: a day of one series out of a hundred thousand must cost milliseconds. Model: the label sets that are asked for become
//! numbers; the table's log says which files may hold these, a file's index says which pages may. Files are sorted
//! by series, so they are walked side by side, each opened when its first series is next, all that are due at once: what is in
//! memory is a page of each. Of two samples with one time the one that came later counts, as after a merge.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, Matcher, Sample, TenantId};

use crate::merge::settle;
use crate::run::Run;
use crate::source::Source;
use crate::table::LiveFile;
use crate::{Error, Lake, rows};

/// The label that is a metric's name.
const NAME: &str = "__name__";

/// Files that are opened at once.
const AT_ONCE: usize = 16;

/// A page of what the tables hold.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Series in the order of their numbers, with their samples by time.
    pub series: Vec<(Labels, Vec<Sample>)>,
    /// The number of the series that comes next, if any does.
    pub next: Option<i64>,
}

impl Lake {
    /// The samples a query asks for (its step is not looked at) that came before this offset of the bus; about so many, of the
    /// series from this number on. Files are read on the thread that asks.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn samples(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        (from, before): (i64, u64),
        most: usize,
    ) -> Result<Stored, Error> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let mut files = self.files().await?;
        files.retain(|file| {
            let (first_ms, last_ms) = file.span_ms;
            file.tenant == *tenant && first_ms <= end_ms && last_ms >= start_ms && file.series.1 >= from
        });
        let mut page = Stored::default();
        if files.is_empty() {
            return Ok(page);
        }
        let mut asked = self.selected(tenant, query, from).await?;
        let ids: Vec<i64> = asked.keys().copied().collect();
        files.retain(|file| {
            let next = ids.partition_point(|id| *id < file.series.0);
            ids.get(next).is_some_and(|id| *id <= file.series.1)
        });
        files.sort_unstable_by_key(|file| std::cmp::Reverse(file.series.0));
        let (mut runs, mut all, mut held) = (Vec::<Run>::new(), Vec::new(), 0);
        loop {
            let mut least = None;
            for run in &mut runs {
                least = least.into_iter().chain(run.series()?).min();
            }
            // Those that may hold the next series; nothing is read yet of the first.
            let first = |file: &LiveFile| ids.get(ids.partition_point(|id| *id < file.series.0)).copied();
            let next = least.or_else(|| first(files.last()?));
            let mut due = Vec::new();
            while due.len() < AT_ONCE
                && let Some(file) = files.pop_if(|file| next.is_some_and(|next| file.series.0 <= next))
            {
                due.push(self.open_samples(&file).await?);
            }
            if !due.is_empty() {
                runs.extend(begin(due, &ids)?);
                continue;
            }
            let Some(series) = least else { return Ok(page) };
            if held >= most {
                page.next = Some(series);
                return Ok(page);
            }
            all.clear();
            for run in &mut runs {
                run.take(series, &mut all)?;
            }
            let mut open = Vec::with_capacity(runs.len());
            for mut run in runs {
                if run.series()?.is_some() {
                    open.push(run);
                }
            }
            runs = open;
            // A page holds its neighbours, too.
            let Some(labels) = asked.remove(&series) else { continue };
            all.retain(|(sample, offset)| {
                (start_ms..=end_ms).contains(&sample.ts_ms)
                    && u64::try_from(*offset).is_ok_and(|offset| offset <= before)
            });
            settle(&mut all);
            held += all.len();
            if !all.is_empty() {
                page.series.push((labels, all.iter().map(|(sample, _)| *sample).collect()));
            }
        }
    }

    /// The series that a query selects, from this number on.
    async fn selected(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        from: i64,
    ) -> Result<BTreeMap<i64, Labels>, Error> {
        let names = names(query);
        let mut found = BTreeMap::new();
        for file in self.open_series(tenant, from).await? {
            let labels = rows::labels(file, names.as_ref())?.into_iter();
            found.extend(labels.filter(|(id, labels)| *id >= from && query.selects(labels)));
        }
        Ok(found)
    }
}

/// Opens files side by side and reads their first page: what is waited for is the disk.
fn begin(files: Vec<Source>, ids: &[i64]) -> Result<Vec<Run>, Error> {
    std::thread::scope(|scope| {
        let begin = |file| {
            scope.spawn(move || {
                let mut run = Run::open(file, Some(ids))?;
                run.series().map(|_| run)
            })
        };
        let begun: Vec<_> = files.into_iter().map(begin).collect();
        begun.into_iter().map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// The names of the metrics that a query can be about; without an answer, all.
pub(crate) fn names(query: &SeriesQuery) -> Option<BTreeSet<&str>> {
    if query.selectors.is_empty() {
        return None;
    }
    query.selectors.iter().map(|selector| name(selector)).collect()
}

fn name(selector: &[Matcher]) -> Option<&str> {
    selector.iter().filter(|matcher| matcher.name == NAME).find_map(Matcher::only_value)
}
