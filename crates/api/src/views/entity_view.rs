//! An entity on the wire.

use serde::Serialize;
use utoipa::ToSchema;
use wardroom_domain::Entity;

/// What an incident, a cause or an observation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EntityView {
    /// Kind, such as `service`, `database` or `node`.
    pub kind: String,
    /// Cluster; empty if unknown.
    pub cluster: String,
    /// Deployment environment; empty if unknown.
    pub environment: String,
    /// Namespace; empty if unknown.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl EntityView {
    /// Returns the id of the entity: all of its fields.
    pub fn id(&self) -> String {
        let Self { kind, cluster, environment, namespace, name } = self;
        format!("{kind}/{cluster}/{environment}/{namespace}/{name}")
    }
}

impl From<&Entity> for EntityView {
    fn from(entity: &Entity) -> Self {
        let Entity { kind, cluster, environment, namespace, name } = entity.clone();
        Self { kind: kind.as_str().to_owned(), cluster, environment, namespace, name }
    }
}
