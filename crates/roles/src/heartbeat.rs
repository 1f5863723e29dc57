//! The heartbeat (dead man's switch): posts to a URL only while probe samples reach detection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use wardroom_domain::labels::NAME_LABEL;
use wardroom_domain::{Batch, Envelope, Labels, Metrics, Principal, Sample, SeriesRun, TenantId};
use wardroom_pipeline::state::tenants::{PROBE_METRIC, SELF_TENANT, Tenants};
use wardroom_sources::{AcceptedRequest, Intake};

use crate::clock;
use crate::config::HeartbeatConfig;
use crate::metrics as names;

/// Timeout of a heartbeat request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends probe samples through intake, bus and detection, and posts a heartbeat for each that arrived. Runs until
/// cancelled.
pub(crate) async fn run_heartbeat(config: HeartbeatConfig, intake: Intake, tenants: Arc<Tenants>) {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).build().into();
    let mut tick = tokio::time::interval(Duration::from_secs(config.interval_seconds.max(1)));
    tick.tick().await;
    let mut last_probe_ms = 0;
    loop {
        if let Err(error) = (intake.append)(probe(&tenants)).await {
            tracing::error!(%error, "appending the heartbeat probe failed");
        }
        tick.tick().await;
        let probe_ms = tenants.last_probe_ms.load(Ordering::Acquire);
        let arrived = probe_ms > last_probe_ms;
        last_probe_ms = probe_ms;
        metrics::gauge!(names::HEARTBEAT_PROBE_ARRIVED).set(if arrived { 1.0 } else { 0.0 });
        let Some(url) = config.url.clone().filter(|_| arrived) else {
            if !arrived {
                tracing::error!("heartbeat probe did not reach detection; no heartbeat sent");
            }
            continue;
        };
        let agent = agent.clone();
        let sent = tokio::task::spawn_blocking(move || agent.post(&url).send(&[] as &[u8]).map(drop)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "sending a heartbeat failed");
        }
    }
}

fn probe(tenants: &Tenants) -> AcceptedRequest {
    let now = clock::now();
    let series = tenants.get(&probe_tenant()).registry().get_or_insert(&Labels::of(&[(NAME_LABEL, PROBE_METRIC)]));
    let samples = vec![Sample { ts_ms: now.millis(), value: 1.0 }];
    let body = json!({ "timestamp": now, "metric_name": PROBE_METRIC, "value": 1.0 }).to_string();
    let envelope = Envelope {
        tenant: probe_tenant(),
        principal: Principal::wardroom(),
        protocol: "json_metrics".into(),
        content_type: "application/json".into(),
        content_encoding: String::new(),
        received_at: now,
        refused: Vec::new(),
        has_events: false,
    };
    let metrics = Metrics { runs: vec![SeriesRun { series, count: 1 }], samples, ..Metrics::default() };
    let batch = Batch { metrics, ..Batch::default() };
    AcceptedRequest { envelope, body: Bytes::from(body), batch }
}

/// The tenant of Wardroom's own telemetry, apart from users' data.
fn probe_tenant() -> TenantId {
    TenantId::new(SELF_TENANT).unwrap_or_else(|_| TenantId::main())
}
