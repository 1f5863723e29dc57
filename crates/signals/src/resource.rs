//! What log lines and spans are about, by their resource attributes.

use wardroom_domain::{Entity, EntityKind, Relation};

use crate::context::Context;
use crate::series::own_meaning;

/// What a log line or span is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceEntity {
    /// The entity; `None` if the attributes name nothing.
    pub entity: Option<Entity>,
    /// The reporting process.
    pub instance: String,
    /// Further names of the entity: pods, addresses.
    pub aliases: Vec<String>,
    /// Relations that the attributes show.
    pub relations: Vec<Relation>,
}

/// Returns what resource attributes name.
pub(crate) fn entity_of_resource(context: &Context<'_>) -> ResourceEntity {
    let meaning = own_meaning(context, context.rules.entity_of(&context.view));
    let mut aliases = meaning.aliases;
    let workloads = ["k8s.deployment.name", "k8s.statefulset.name", "k8s.daemonset.name", "k8s.cronjob.name"];
    if let Some(entity) = meaning.entity.as_ref().filter(|entity| entity.kind == EntityKind::Service) {
        // A service may be named otherwise than its workload.
        let workload = context.view.value(&workloads).filter(|name| *name != entity.name);
        aliases.extend(workload.map(str::to_owned));
    }
    let instance = context.view.value(&["service.instance.id", "k8s.pod.name"]).unwrap_or(&meaning.instance).to_owned();
    ResourceEntity { entity: meaning.entity, instance, aliases, relations: meaning.relations }
}
