//! Totals of maintenance tasks.

/// Totals of merged and joined files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// Files read.
    pub files_in: usize,
    /// Files written.
    pub files_out: usize,
    /// Rows written.
    pub rows: u64,
}

impl MaintenanceReport {
    /// Adds another report.
    pub(crate) fn add(&mut self, other: Self) {
        self.files_in += other.files_in;
        self.files_out += other.files_out;
        self.rows += other.rows;
    }
}
