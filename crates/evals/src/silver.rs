//! What the tables hold, as a reader from outside finds it: no code of ours, and without DISTINCT.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use wardroom_testing::{Server, server};

/// The tables have caught up this soon.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the tables hold.
#[derive(Debug)]
pub(crate) struct Silver {
    /// Rows of the oracle's series by their time in ms.
    pub(crate) requests: BTreeMap<i64, Rows>,
    /// How often each log line is there.
    pub(crate) logs: BTreeMap<String, u64>,
    /// How often each deployment is there, by its version.
    pub(crate) deployments: BTreeMap<String, u64>,
}

/// Rows of one time.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) count: u64,
    /// Of all their [`part`]s.
    pub(crate) sum: u128,
}

/// What a row adds to the sum: another value, or the same in another series, gives another one.
pub(crate) fn part(value: f64, series: u64) -> u128 {
    (value as u128 % 1_000_000_007) * u128::from(series + 1)
}

/// Waits until the tables hold everything that was acknowledged.
pub(crate) fn settle(server: &Server) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let (_, text) = server.get("/metrics", &server.responder)?;
        let lag = text.lines().find_map(|line| line.strip_prefix("wardroom_lake_lag_records "));
        if lag == Some("0") {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "the tables are {lag:?} records behind after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Silver {
    /// Reads the tables of a server's folder.
    /// Every older version is read, too, if asked: it must be there as long as nothing was swept.
    pub(crate) fn read(dir: &Path, versions: bool) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Printed {
            requests: Vec<(i64, u64, String)>,
            logs: BTreeMap<String, u64>,
            deployments: BTreeMap<String, u64>,
        }
        let mut python = python();
        python.args(["-c", include_str!("silver.py")]).arg(dir.join("data/lake"));
        let output = python.args(versions.then_some("versions")).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let printed: Printed = serde_json::from_slice(&output.stdout)?;
        let rows =
            |(at_ms, count, sum): (i64, u64, String)| Ok((at_ms, Rows { count, sum: sum.parse().context("sum")? }));
        Ok(Self {
            requests: printed.requests.into_iter().map(rows).collect::<anyhow::Result<_>>()?,
            logs: printed.logs,
            deployments: printed.deployments,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the witness is a program of its own")]
pub(crate) fn python() -> Command {
    let mut python = Command::new(server::program("CLIENT_PYTHON"));
    python.env("PYTHONHOME", server::program("CLIENT_PYTHON_HOME"));
    python.env("PYTHONPATH", server::program("CLIENT_PYTHON_SITE"));
    python.env("LD_LIBRARY_PATH", server::program("CLIENT_LIBRARIES"));
    python
}
