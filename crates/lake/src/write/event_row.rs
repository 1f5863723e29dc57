//! A row of `silver.events`: what a sender reports, and what detection infers, in the same columns.

use std::borrow::Cow;

use wardroom_domain::event::{DEPLOYED_STATUS, DEPLOYED_VERSION};
use wardroom_domain::{Deployment, Entity, Event, EventKind, Labels, Timestamp};

use crate::format::row_buffer::{Cell, micros, sub_micro_nanos};

/// Number of columns of its own, without entity and lineage.
const COLUMNS: usize = 11;

/// The values of a row.
pub(crate) struct EventRow<'a> {
    at: Timestamp,
    id: String,
    kind: EventKind,
    source: &'a str,
    entity: Cow<'a, Entity>,
    version: Option<&'a str>,
    status: Option<&'a str>,
    attributes: Cow<'a, Labels>,
}

impl<'a> EventRow<'a> {
    /// The row of a deployment that a sender reports. Version, status and attributes are as sent.
    pub(crate) fn of_deployment(deployment: &'a Deployment) -> Self {
        let event = deployment.event();
        Self {
            at: deployment.at,
            id: event.id(),
            kind: event.kind,
            source: Event::REPORTED,
            version: Some(&deployment.version),
            status: Some(&deployment.status),
            attributes: Cow::Borrowed(&deployment.metadata),
            entity: Cow::Owned(event.entity),
        }
    }

    /// The row of any event.
    pub(crate) fn of_event(event: &'a Event) -> Self {
        let is_column = |name: &str| name == DEPLOYED_VERSION || name == DEPLOYED_STATUS;
        let others = event.attributes.iter().filter(|(name, _)| !is_column(name)).collect();
        Self {
            at: event.at,
            id: event.id(),
            kind: event.kind,
            source: &event.source,
            entity: Cow::Borrowed(&event.entity),
            version: event.attributes.get(DEPLOYED_VERSION),
            status: event.attributes.get(DEPLOYED_STATUS),
            attributes: Cow::Owned(Labels::new(others)),
        }
    }

    /// What it happened to.
    pub(crate) fn entity(&self) -> &Entity {
        &self.entity
    }

    /// Returns the cells of the table's own columns.
    pub(crate) fn cells<'c>(&'c self, seq: i32, request: Cell<'c>) -> [Cell<'c>; COLUMNS] {
        [
            Cell::Timestamp(micros(self.at)),
            Cell::Int(sub_micro_nanos(self.at)),
            Cell::Text(&self.id),
            Cell::Text(self.kind.as_str()),
            Cell::Text(self.source),
            Cell::Text(&self.entity.name),
            self.version.map_or(Cell::Null, Cell::Text),
            self.status.map_or(Cell::Null, Cell::Text),
            Cell::Labels(&self.attributes),
            Cell::Int(seq),
            request,
        ]
    }
}
