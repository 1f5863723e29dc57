//! The catalog: what a series means, by the conventions, else by the shape of its name.

use std::sync::{Arc, LazyLock};

use wardroom_domain::{Entity, EntityRules, Labels, LogEntry, MetricMetadata};

use crate::context::Context;
use crate::convention_index::{Tables, UserConvention};
use crate::error::ConventionError;
use crate::meaning::{Outcome, SeriesMeaning};
use crate::outcome::outcome_of_labels;
use crate::resource::{self, ResourceEntity};
use crate::{peer, series, version};

/// Attribute that names the service of a record.
const SERVICE_NAME: &str = "service.name";

/// What is known of instrumentations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    entity_rules: Arc<EntityRules>,
    /// The user's conventions and the built-in ones; the latter alone are read when they are needed first, since
    /// processes that judge nothing have a configuration, too.
    tables: Option<Arc<Tables>>,
    user: Arc<[UserConvention]>,
}

/// The built-in conventions; parsed once. A test reads each of them, so that none is left out here.
static BUILTIN_TABLES: LazyLock<Tables> = LazyLock::new(|| Tables::new(&[]).unwrap_or_default());

impl Default for Catalog {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Catalog {
    /// Returns the built-in conventions, with the default entity rules.
    pub fn builtin() -> Self {
        Self { entity_rules: Arc::new(EntityRules::default()), tables: None, user: Arc::default() }
    }

    /// Returns the user's conventions before the built-in ones, with these entity rules.
    ///
    /// # Errors
    /// Returns an error if a convention cannot be read; it names the file, the series and the reason.
    pub fn new(entity_rules: &EntityRules, user: &[UserConvention]) -> Result<Self, ConventionError> {
        let tables = if user.is_empty() { None } else { Some(Arc::new(Tables::new(user)?)) };
        Ok(Self { entity_rules: Arc::new(entity_rules.clone()), tables, user: user.into() })
    }

    fn tables(&self) -> &Tables {
        self.tables.as_deref().unwrap_or_else(|| &BUILTIN_TABLES)
    }

    /// Returns the user's conventions, in their order: what was learned with others means something else.
    pub fn user_conventions(&self) -> &[UserConvention] {
        &self.user
    }

    /// Returns what a series means. `metadata` is what the sender says of its family.
    pub fn meaning(&self, labels: &Labels, metadata: Option<&MetricMetadata>) -> SeriesMeaning {
        series::meaning(self.tables(), &Context::new(labels, &self.entity_rules), metadata)
    }

    /// Returns what a log line or span is about, by its resource attributes.
    pub fn entity_of_resource(&self, labels: &Labels) -> ResourceEntity {
        resource::entity_of_resource(&Context::new(labels, &self.entity_rules))
    }

    /// Returns the entity of [`entity_of_resource`](Self::entity_of_resource) alone, for callers that need no more.
    pub fn entity_of_record(&self, labels: &Labels) -> Option<Entity> {
        let context = Context::new(labels, &self.entity_rules);
        self.entity_rules.entity_of(&context.view)
    }

    /// Returns what wrote a log line: by the service that its protocol names, and by its attributes.
    pub fn resource_of_log(&self, log: &LogEntry) -> ResourceEntity {
        let by_service = || Entity::service(log.service.clone());
        if log.labels.as_bytes().is_empty() {
            return ResourceEntity { entity: Some(by_service()), ..ResourceEntity::default() };
        }
        let found = match log.service.as_str() {
            "" => self.entity_of_resource(&log.labels),
            service => self.entity_of_resource(&with_service(service, &log.labels)),
        };
        ResourceEntity { entity: found.entity.or_else(|| Some(by_service())), ..found }
    }

    /// Returns the entity of [`resource_of_log`](Self::resource_of_log) alone.
    pub fn entity_of_log(&self, log: &LogEntry) -> Entity {
        let by_attributes = match log.service.as_str() {
            _ if log.labels.as_bytes().is_empty() => None,
            "" => self.entity_of_record(&log.labels),
            service => self.entity_of_record(&with_service(service, &log.labels)),
        };
        by_attributes.unwrap_or_else(|| Entity::service(log.service.clone()))
    }

    /// Returns the name of the service or workload that labels name; empty if they name none. Without allocation, for
    /// limits.
    pub fn service_name<'a>(&self, labels: &'a Labels) -> &'a str {
        self.entity_rules.service_of(labels)
    }

    /// Returns the name of the service that a client metric says it calls. Without allocation, for limits.
    pub fn called_name<'a>(&self, labels: &'a Labels) -> Option<&'a str> {
        self.entity_rules.peer_of(labels)
    }

    /// Returns what a client or producer span calls.
    pub fn peer_of_span(&self, labels: &Labels) -> Option<Entity> {
        peer::called(&Context::new(labels, &self.entity_rules)).map(|called| called.entity)
    }

    /// Returns the further names of what a client or producer span calls: its address.
    pub fn peer_aliases_of_span(&self, labels: &Labels) -> Vec<String> {
        peer::called(&Context::new(labels, &self.entity_rules)).map(|called| called.aliases).unwrap_or_default()
    }

    /// Returns the outcome of the requests that a series or span is about.
    pub fn outcome_of(&self, labels: &Labels) -> Outcome {
        outcome_of_labels(&Context::new(labels, &self.entity_rules))
    }

    /// Returns the version that a series announces, and of what: `…_build_info` and the like.
    pub fn version_of(&self, labels: &Labels) -> Option<(Entity, String)> {
        version::version_of(self.tables(), &Context::new(labels, &self.entity_rules))
    }

    /// Returns the entity rules.
    pub fn entity_rules(&self) -> &EntityRules {
        &self.entity_rules
    }

    /// Returns the conventions: id, and whether it was tested on a real capture.
    pub fn conventions(&self) -> impl Iterator<Item = (&str, bool)> {
        self.tables().conventions.iter().map(|convention| (&*convention.id, convention.verified))
    }
}

/// Returns labels with the service that the protocol names.
fn with_service(service: &str, labels: &Labels) -> Labels {
    Labels::new([(SERVICE_NAME, service)].into_iter().chain(labels.iter()).collect())
}

#[cfg(test)]
mod tests;
