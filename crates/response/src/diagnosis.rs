//! Diagnosis of an incident from what detection knows: the server, replays and evaluations run the same steps.

use wardroom_diagnose::{Config, Facts, Weights, diagnose, needs};
use wardroom_domain::{Diagnosis, Incident};
use wardroom_pipeline::state::tenants::Tenant;

use crate::diagnosis_facts::{answer, collect};

/// Maximum number of times that diagnosis may ask for further evidence.
const MAX_ROUNDS: usize = 3;

/// Collects the facts about an incident, asks detection for what diagnosis still needs, and diagnoses.
pub fn diagnose_incident(tenant: &Tenant, incident: &Incident, config: &Config, weights: &Weights) -> Diagnosis {
    diagnose(&incident_facts(tenant, incident, config, weights), config, weights)
}

/// Collects the facts about an incident, with what diagnosis asks detection for.
pub fn incident_facts(tenant: &Tenant, incident: &Incident, config: &Config, weights: &Weights) -> Facts {
    let view = tenant.view();
    let mut facts = collect(&view.engine, incident, config);
    for _ in 0..MAX_ROUNDS {
        let needs = needs(&facts, weights);
        if needs.is_empty() {
            break;
        }
        answer(&needs, &view.engine, &tenant.detectors().engine, config, &mut facts);
    }
    facts
}
