//! The dead man's switch: a sign of life outward, only while readings really reach the detector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use wardroom_domain::labels::NAME;
use wardroom_domain::{Batch, Envelope, Labels, Metrics, Principal, Run, Sample, TenantId};
use wardroom_sources::{Accepted, Intake};

use crate::clock;
use crate::config::HeartbeatConfig;
use crate::metrics as names;
use wardroom_pipeline::tenants::{PROBE, SELF, Tenants};

/// Sends a probe sample through intake, bus and detector, and reports outward if it arrived.
pub(crate) async fn run(config: HeartbeatConfig, intake: Intake, tenants: Arc<Tenants>) {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build().into();
    let mut tick = tokio::time::interval(Duration::from_secs(config.interval_seconds.max(1)));
    tick.tick().await;
    let mut last = 0;
    loop {
        if let Err(error) = (intake.append)(probe(&tenants)).await {
            tracing::error!(%error, "heartbeat probe could not be stored");
        }
        tick.tick().await;
        let probed = tenants.probed_ms.load(Ordering::Acquire);
        let arrived = probed > last;
        last = probed;
        metrics::gauge!(names::HEARTBEAT_PROBE_ARRIVED).set(if arrived { 1.0 } else { 0.0 });
        let Some(url) = config.url.clone().filter(|_| arrived) else {
            if !arrived {
                tracing::error!("heartbeat probe did not reach the detector; no heartbeat is sent");
            }
            continue;
        };
        let agent = agent.clone();
        let sent = tokio::task::spawn_blocking(move || agent.post(&url).send(&[] as &[u8]).map(drop)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "heartbeat could not be delivered");
        }
    }
}

fn probe(tenants: &Tenants) -> Accepted {
    let now = clock::now();
    let series = tenants.get(&probe_tenant()).registry().id_of(&Labels::of(&[(NAME, PROBE)]));
    let samples = vec![Sample { ts_ms: now.millis(), value: 1.0 }];
    let body = json!({ "timestamp": now, "metric_name": PROBE, "value": 1.0 }).to_string();
    let envelope = Envelope {
        tenant: probe_tenant(),
        principal: Principal::wardroom(),
        protocol: "json_metrics".into(),
        content_type: "application/json".into(),
        content_encoding: String::new(),
        received_at: now,
        refused: Vec::new(),
        events: false,
    };
    let metrics = Metrics { runs: vec![Run { series, count: 1 }], samples, ..Metrics::default() };
    let batch = Batch { metrics, ..Batch::default() };
    Accepted { envelope, body: Bytes::from(body), batch }
}

/// Wardroom's own readings stay out of every tenant's data.
fn probe_tenant() -> TenantId {
    TenantId::new(SELF).unwrap_or_else(|_| TenantId::main())
}
