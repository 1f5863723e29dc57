//! The lake's contents as an independent reader (DuckDB) finds them. Rows are counted without DISTINCT.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use wardroom_testing::Server;

use crate::client_python::python;
use crate::server_metrics::lake_lag_records;

/// The lake must hold everything that was acknowledged within this time.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);

/// Contents of the silver tables.
#[derive(Debug)]
pub(crate) struct LakeContents {
    /// Rows of the oracle's series by their time in ms.
    pub(crate) requests: BTreeMap<i64, RowSummary>,
    /// Number of rows of each log message.
    pub(crate) logs: BTreeMap<String, u64>,
    /// Number of rows of each deployed version.
    pub(crate) deployments: BTreeMap<String, u64>,
}

/// Rows with the same time.
#[derive(Debug)]
pub(crate) struct RowSummary {
    pub(crate) count: u64,
    /// Sum of their [`row_checksum`]s.
    pub(crate) sum: u128,
}

/// Returns what a row adds to the sum. It differs for another value, and for the same value in another series.
pub(crate) fn row_checksum(value: f64, series: u64) -> u128 {
    (value as u128 % 1_000_000_007) * u128::from(series + 1)
}

/// Waits until the lake holds everything that was acknowledged.
pub(crate) fn wait_for_lake(server: &Server) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let lag = lake_lag_records(server)?;
        if lag == Some(0.0) {
            return Ok(());
        }
        ensure!(started.elapsed() < CATCH_UP_TIMEOUT, "the lake lags by {lag:?} records after {CATCH_UP_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl LakeContents {
    /// Reads the tables below a server's folder. With `all_versions`, every older table version is read as well: none
    /// may hold fewer rows than the one before, as long as nothing was vacuumed.
    pub(crate) fn read(dir: &Path, all_versions: bool) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Output {
            requests: Vec<(i64, u64, String)>,
            logs: BTreeMap<String, u64>,
            deployments: BTreeMap<String, u64>,
        }
        let mut python = python();
        python.args(["-c", include_str!("lake_contents.py")]).arg(dir.join("data/lake"));
        let output = python.args(all_versions.then_some("versions")).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let output: Output = serde_json::from_slice(&output.stdout)?;
        let rows = |(at_ms, count, sum): (i64, u64, String)| {
            Ok((at_ms, RowSummary { count, sum: sum.parse().context("sum")? }))
        };
        Ok(Self {
            requests: output.requests.into_iter().map(rows).collect::<anyhow::Result<_>>()?,
            logs: output.logs,
            deployments: output.deployments,
        })
    }
}
