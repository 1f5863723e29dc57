//! Options and result of a bar: one crash or fault test of `torture`.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Options of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct BarOptions {
    /// Number of kills, or the unit of effort that the bar documents.
    pub(crate) kills: u64,
    pub(crate) seed: u64,
    /// Deliberate fault to enable in the binary, for builds with the feature `mutants`.
    pub(crate) mutant: Option<String>,
}

impl BarOptions {
    /// Creates the temporary folder of a bar.
    pub(crate) fn create_dir(&self, bar: &str) -> anyhow::Result<PathBuf> {
        let dir = std::env::temp_dir().join(format!("wardroom-{bar}-{}-{}", std::process::id(), self.seed));
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Name of the mutant; empty for none.
    pub(crate) fn mutant_name(&self) -> &str {
        self.mutant.as_deref().unwrap_or_default()
    }
}

/// Counts and faults of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct BarResult {
    pub(crate) issued: u64,
    pub(crate) acked: u64,
    /// Acknowledged, but not read back.
    pub(crate) missing: u64,
    /// Read back, but never sent.
    pub(crate) spurious: u64,
    /// Read back with another content.
    pub(crate) corrupted: u64,
    pub(crate) duplicate: u64,
    /// Kills carried out.
    pub(crate) kills: u64,
    /// Crash points of the binary, each killed at once.
    pub(crate) points: u64,
    /// Average rate of acknowledged samples.
    pub(crate) samples_per_s: f64,
    /// What was measured, by name with unit.
    pub(crate) figures: BTreeMap<&'static str, f64>,
    /// Descriptions of all other failures.
    pub(crate) faults: Vec<String>,
}

impl BarResult {
    pub(crate) fn is_clean(&self) -> bool {
        self.missing + self.spurious + self.corrupted + self.duplicate == 0 && self.faults.is_empty()
    }

    /// Records a figure that must be below its limit.
    pub(crate) fn check(&mut self, name: &'static str, value: f64, limit: f64) {
        self.figures.insert(name, value);
        if value.is_nan() || value >= limit {
            self.faults.push(format!("{name}: {value:.3}, the limit is {limit}"));
        }
    }

    /// Adds the counts of another run; of a figure the largest counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.issued += other.issued;
        self.acked += other.acked;
        self.missing += other.missing;
        self.spurious += other.spurious;
        self.corrupted += other.corrupted;
        self.duplicate += other.duplicate;
        self.kills += other.kills;
        self.points = self.points.max(other.points);
        self.samples_per_s = self.samples_per_s.max(other.samples_per_s);
        self.faults.extend(other.faults);
        for (name, value) in other.figures {
            let known = self.figures.entry(name).or_insert(value);
            *known = known.max(value);
        }
    }
}
