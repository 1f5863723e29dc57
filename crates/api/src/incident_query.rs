//! What a list of incidents is filtered and sorted by.

use serde::Deserialize;
use utoipa::ToSchema;
use wardroom_domain::{IncidentState, Severity, Timestamp};

/// Order of incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncidentSort {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
    /// The one that changed last first.
    Updated,
}

/// Which incidents are asked for; what is empty or `None` selects all.
#[derive(Clone, Debug, Default)]
pub struct IncidentQuery {
    /// States.
    pub states: Vec<IncidentState>,
    /// Severities.
    pub severities: Vec<Severity>,
    /// Name of an affected entity.
    pub entity: Option<String>,
    /// Who works on it; `Some` of an empty text for those without one.
    pub owner: Option<String>,
    /// Opened at or after, by the telemetry's clock.
    pub since: Option<Timestamp>,
    /// Opened before, by the telemetry's clock.
    pub until: Option<Timestamp>,
    /// Words that its id, title, entities, causes or comments have, whatever their case; all of them.
    pub words: Vec<String>,
    /// Order.
    pub sort: IncidentSort,
    /// `next` of the previous page.
    pub cursor: Option<i64>,
    /// Maximum number of incidents.
    pub limit: u32,
}
