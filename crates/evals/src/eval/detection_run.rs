//! Detection, correlation and diagnosis of telemetry in this process, as the server does them, without a server.
//!
//! All time is telemetry's: an incident is diagnosed when the telemetry has reached the times at which the server would
//! diagnose it. There is no response: nothing is proposed and nothing ends an incident.

use std::sync::Arc;

use wardroom_correlate::Decision;
use wardroom_diagnose::{Facts, Weights, diagnose};
use wardroom_domain::{Batch, Envelope, Incident, Labels, Metrics, Sample, SeriesId, SeriesRun, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_pipeline::detection::evaluate::evaluate;
use wardroom_pipeline::state::tenants::{Tenant, Tenants};
use wardroom_response::incident_facts;

/// The first diagnosis comes after one interval of the signal, at most this long after the opening, in ms.
const MAX_FIRST_DIAGNOSIS_MS: i64 = 15_000;
/// Later diagnoses, in ms after the opening.
const LATER_DIAGNOSES_MS: [i64; 3] = [30_000, 120_000, 300_000];
/// Memory for the bodies of requests, in bytes.
const BODY_BYTES: usize = 512 << 20;

/// Telemetry that has been judged up to now.
pub(crate) struct DetectionRun {
    config: wardroom_pipeline::Config,
    diagnose: wardroom_diagnose::Config,
    weights: Weights,
    tenants: Tenants,
    tenant: Arc<Tenant>,
    budget: InflateBudget,
    incidents: Vec<FoundIncident>,
}

/// An incident that opened, with the newest diagnosis.
#[derive(Clone, Debug)]
pub(crate) struct FoundIncident {
    /// The incident, as correlation reported it last.
    pub(crate) incident: Incident,
    /// Names and rules of the causes, best first.
    pub(crate) causes: Vec<(String, String)>,
    /// The facts of the newest diagnosis.
    pub(crate) facts: Option<Facts>,
    /// Telemetry's times of the diagnoses that are still to come, in ms.
    due_ms: Vec<i64>,
}

impl DetectionRun {
    /// Creates a run with the default configuration.
    ///
    /// # Errors
    /// Returns an error if the weights of diagnosis cannot be read.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut config = wardroom_pipeline::Config::default();
        config.lake.enabled = false;
        let tenants = Tenants::new(config.clone());
        let tenant = tenants.get(&TenantId::main());
        let (diagnose, weights) = (wardroom_diagnose::Config::default(), Weights::builtin()?);
        let budget = InflateBudget::new(BODY_BYTES, BODY_BYTES);
        Ok(Self { config, diagnose, weights, tenants, tenant, budget, incidents: Vec::new() })
    }

    /// Judges one request as a receiver would have got it.
    ///
    /// # Errors
    /// Returns an error if the body cannot be decoded.
    pub(crate) fn request(&mut self, envelope: &Envelope, body: &[u8]) -> anyhow::Result<()> {
        let decoded = wardroom_sources::replay(envelope, body, &self.budget);
        let mut decoded = decoded.map_err(|failure| anyhow::anyhow!("{}: {failure}", envelope.protocol))?;
        let (keys, read) = (decoded.metrics.keys(), |index: usize| decoded.metrics.labels(index));
        let found = self.tenants.resolve(&envelope.tenant, keys, &read, false);
        decoded.metrics.set_series_ids(found.ids, found.generation);
        let batch = decoded.into_batch(body, envelope.received_at);
        self.batch(&batch);
        Ok(())
    }

    /// Returns the id of a series; adds it if it is new.
    pub(crate) fn series(&self, labels: &Labels) -> SeriesId {
        self.tenant.registry().get_or_insert(labels)
    }

    /// Judges the samples of one scrape.
    pub(crate) fn scrape(&mut self, received_at: Timestamp, samples: &[(SeriesId, Sample)]) {
        let runs = samples.iter().map(|(series, _)| SeriesRun { series: *series, count: 1 }).collect();
        let samples = samples.iter().map(|(_, sample)| *sample).collect();
        let metrics = Metrics { runs, samples, ..Metrics::default() };
        self.batch(&Batch { metrics, received_at: Some(received_at), ..Batch::default() });
    }

    fn batch(&mut self, batch: &Batch) {
        let (_, decisions) = evaluate(&self.config, &self.tenant, batch);
        for decision in decisions {
            match decision {
                Decision::Opened(incident) => self.incidents.push(FoundIncident::new(incident)),
                Decision::Joined { key, entity } => {
                    if let Some(found) = self.find(&key) {
                        found.incident.add_entity(&entity);
                    }
                }
                Decision::Updated { key, title, severity } => {
                    if let Some(found) = self.find(&key) {
                        (found.incident.title, found.incident.severity) = (title, severity);
                    }
                }
            }
        }
        let now_ms = self.tenant.view().engine.watermark_ms();
        for found in &mut self.incidents {
            if found.due_ms.first().is_none_or(|due_ms| *due_ms > now_ms) {
                continue;
            }
            found.due_ms.retain(|due_ms| *due_ms > now_ms);
            let facts = incident_facts(&self.tenant, &found.incident, &self.diagnose, &self.weights);
            let causes = diagnose(&facts, &self.diagnose, &self.weights).causes.into_iter();
            found.causes = causes.map(|cause| (cause.entity.name, cause.rule)).collect();
            found.facts = Some(facts);
        }
    }

    fn find(&mut self, key: &str) -> Option<&mut FoundIncident> {
        self.incidents.iter_mut().find(|found| found.incident.key == key)
    }

    /// Returns the incidents in the order of their opening.
    pub(crate) fn finish(self) -> Vec<FoundIncident> {
        self.incidents
    }
}

impl FoundIncident {
    fn new(incident: Incident) -> Self {
        let opened_ms = incident.opened_at.millis();
        let first_ms = incident.interval_ms.clamp(0, MAX_FIRST_DIAGNOSIS_MS);
        let due_ms = [first_ms].into_iter().chain(LATER_DIAGNOSES_MS).map(|after_ms| opened_ms + after_ms).collect();
        Self { incident, causes: Vec::new(), facts: None, due_ms }
    }
}
