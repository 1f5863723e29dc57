//! Reads a server's `/metrics`.

use anyhow::Context;
use wardroom_testing::Server;

/// Returns the value of a metric without labels; `None` if it is not exposed.
pub(crate) fn read_metric(server: &Server, name: &str) -> anyhow::Result<Option<f64>> {
    let (_, text) = server.get("/metrics", &server.responder_token)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.map(|value| value.trim().parse()).transpose()?)
}

/// Records that detection has not processed yet.
pub(crate) fn detector_lag_records(server: &Server) -> anyhow::Result<f64> {
    read_metric(server, "wardroom_detect_lag_records")?.context("/metrics does not expose the detector's lag")
}

/// Records that are not in the lake yet; `None` without a lake.
pub(crate) fn lake_lag_records(server: &Server) -> anyhow::Result<Option<f64>> {
    read_metric(server, "wardroom_lake_lag_records")
}
