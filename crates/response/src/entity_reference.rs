//! How a person names an entity: by its id, by `kind:name`, or by its name alone.

use wardroom_api::EntityView;
use wardroom_domain::{Entity, EntityKind};

/// Ids that an error names, at most.
const MAX_NAMED: usize = 5;

/// Returns the entity that a text names, out of those that are known with their further names; `None` if it names none.
///
/// # Errors
/// Returns reason and remedy if it names several.
pub(crate) fn find_entity<'a>(
    text: &str,
    known: impl IntoIterator<Item = (&'a Entity, &'a [String])>,
) -> Result<Option<Entity>, String> {
    let known: Vec<(&Entity, &[String])> = known.into_iter().collect();
    if let Some((entity, _)) = known.iter().find(|(entity, _)| EntityView::from(*entity).id() == text) {
        return Ok(Some((*entity).clone()));
    }
    // A name may have a colon, and may be the further name of another entity: the nearest meaning counts.
    let with_kind = kind_and_name(text).map(|(kind, name)| (Some(kind), name));
    for (kind, name) in with_kind.into_iter().chain([(None, text)]) {
        let of_kind = || known.iter().filter(move |(entity, _)| kind.is_none_or(|kind| entity.kind == kind));
        let mut found: Vec<&Entity> = of_kind().filter(|(it, _)| it.name == name).map(|(it, _)| *it).collect();
        if found.is_empty() {
            let is_alias = |(_, aliases): &&(&Entity, &[String])| aliases.iter().any(|alias| alias == name);
            found = of_kind().filter(is_alias).map(|(it, _)| *it).collect();
        }
        if !found.is_empty() {
            return only(text, found).map(Some);
        }
    }
    Ok(None)
}

/// Returns the entity that a text describes, whether it is known or not: of a name alone, a service.
pub(crate) fn described_entity(text: &str) -> Entity {
    let mut parts = text.splitn(5, '/');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let [kind, cluster, environment, namespace, name] = std::array::from_fn(|_| part());
    if let Some(kind) = EntityKind::parse(&kind).filter(|_| !name.is_empty()) {
        return Entity { kind, cluster, environment, namespace, name };
    }
    match kind_and_name(text) {
        Some((kind, name)) => Entity::named(kind, name),
        None => Entity::service(text),
    }
}

fn kind_and_name(text: &str) -> Option<(EntityKind, &str)> {
    let (kind, name) = text.split_once(':')?;
    Some((EntityKind::parse(kind)?, name)).filter(|(_, name)| !name.is_empty())
}

/// Returns the only entity, or the only service, of those that a text may mean.
fn only(text: &str, mut found: Vec<&Entity>) -> Result<Entity, String> {
    if found.len() > 1 && found.iter().any(|entity| entity.kind == EntityKind::Service) {
        found.retain(|entity| entity.kind == EntityKind::Service);
    }
    match found.as_slice() {
        [entity] => Ok((*entity).clone()),
        several => {
            let ids = several.iter().take(MAX_NAMED).map(|entity| EntityView::from(*entity).id());
            let ids = ids.collect::<Vec<_>>().join(", ");
            Err(format!("{text:?} is the name of {} entities; use one of the ids {ids}", several.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<(Entity, Vec<String>)> {
        let in_place = |environment: &str, entity: Entity| Entity { environment: environment.into(), ..entity };
        vec![
            (Entity::service("cart"), vec![]),
            (Entity::named(EntityKind::Workload, "cart"), vec![]),
            (Entity::named(EntityKind::Database, "orders"), vec!["10.0.0.7:5432".into()]),
            (in_place("prod", Entity::service("web")), vec![]),
            (in_place("test", Entity::service("web")), vec![]),
            (Entity::named(EntityKind::External, "cache:6379"), vec![]),
        ]
    }

    #[test]
    fn ids_kinds_and_names_are_found() {
        let known = known();
        let find = |text: &str| find_entity(text, known.iter().map(|(entity, aliases)| (entity, aliases.as_slice())));
        let id = |text: &str| find(text).unwrap().map(|entity| EntityView::from(&entity).id());
        for (text, expected) in [
            ("cart", "service////cart"),
            ("workload:cart", "workload////cart"),
            ("workload////cart", "workload////cart"),
            ("database:orders", "database////orders"),
            ("10.0.0.7:5432", "database////orders"),
            ("cache:6379", "external////cache:6379"),
            ("service//test//web", "service//test//web"),
        ] {
            assert_eq!(id(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!((id("mail"), id("node:cart"), id("")), (None, None, None));
        let several = find("web").unwrap_err();
        assert!(several.contains("service//prod//web") && several.contains("service//test//web"), "{several}");
    }

    #[test]
    fn what_is_not_known_is_described_by_its_text() {
        assert_eq!(described_entity("mail"), Entity::service("mail"));
        assert_eq!(described_entity("database:orders"), Entity::named(EntityKind::Database, "orders"));
        let entity = described_entity("node/c1/prod//n/1");
        assert_eq!((entity.kind, entity.cluster.as_str(), entity.name.as_str()), (EntityKind::Node, "c1", "n/1"));
        assert_eq!(described_entity("a/b"), Entity::service("a/b"));
    }
}
