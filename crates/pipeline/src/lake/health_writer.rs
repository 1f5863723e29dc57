//! Writes the health of services to `gold.service_health`, from the signals of completed windows.

use std::collections::BTreeMap;

use wardroom_detect::{EngineView, health};
use wardroom_domain::{ServiceHealth, TenantId, Timestamp};
use wardroom_lake::{Error, Lake};

use crate::state::tenants::{SELF_TENANT, Tenants};

/// Length of a health window, in ms.
const WINDOW_MS: i64 = 5 * 60_000;
/// A window is complete this long after its end, in telemetry time, in ms.
const GRACE_MS: i64 = 60_000;
/// Windows to look back for at the start; detection keeps history for about as long.
const MAX_BACKFILL_WINDOWS: i64 = 24;

/// Writes the completed health windows of all tenants. `written_to` is the end of the last window of each tenant that
/// was written, in ms; the tables are asked for one that is not in it.
///
/// # Errors
/// Returns an error if the tables cannot be read or written.
pub async fn write_health(
    lake: &Lake,
    tenants: &Tenants,
    written_to: &mut BTreeMap<TenantId, i64>,
) -> Result<(), Error> {
    for (tenant, state) in tenants.all().into_iter().filter(|(tenant, _)| tenant.as_str() != SELF_TENANT) {
        let written = match written_to.get(&tenant) {
            Some(written) => *written,
            None => lake.committed_health_end(&tenant).await?.map_or(i64::MIN, Timestamp::millis),
        };
        let (windows, end) = {
            let view = state.view();
            let watermark_ms = view.engine.watermark_ms().max(MAX_BACKFILL_WINDOWS * WINDOW_MS);
            let end = (watermark_ms - GRACE_MS).div_euclid(WINDOW_MS) * WINDOW_MS;
            (health_windows(&view.engine, written.max(end - MAX_BACKFILL_WINDOWS * WINDOW_MS), end), end)
        };
        if !windows.is_empty() {
            lake.write_service_health(&tenant, &windows).await?;
        }
        written_to.insert(tenant, written.max(end));
    }
    Ok(())
}

/// Returns the health of all services for each window in a time range; windows without data are left out.
fn health_windows(view: &EngineView, from_ms: i64, end_ms: i64) -> Vec<(Timestamp, Timestamp, Vec<ServiceHealth>)> {
    let starts = (from_ms..end_ms).step_by(WINDOW_MS as usize);
    let windows = starts.map(|start_ms| {
        let [start, end] = [start_ms, start_ms + WINDOW_MS].map(Timestamp::from_millis);
        (start, end, health(view, start_ms..start_ms + WINDOW_MS))
    });
    windows.filter(|(.., facts)| !facts.is_empty()).collect()
}
