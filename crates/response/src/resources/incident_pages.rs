//! Pages of incidents and of plans, the history of an incident, and what changed since a position.

use std::time::Duration;

use wardroom_api::{
    ChangedIncidents, HistoryView, IncidentPage, IncidentQuery, IncidentSort, IncidentSummary, PlanPage, PlanQuery,
    PlanRow,
};
use wardroom_domain::{IncidentState, TenantId, Timestamp};
use wardroom_edge::Problem;
use wardroom_respond::Workflow;
use wardroom_store::{IncidentOrder, IncidentRow};

use crate::incident_views::{approval_view, plan_view, policy_view, read_workflow, summary};
use crate::problem_responses::store_problem;
use crate::responder::Responder;

/// Incidents that are read at once.
const BATCH_ROWS: u32 = 500;
/// Maximum number of incidents that one page looks at.
const MAX_SCANNED_ROWS: usize = 5000;
/// Changes at most this long before a position are returned again: two writers may commit in another order than they
/// took the time.
const CHANGE_OVERLAP: Duration = Duration::from_secs(5);
/// Maximum number of changed incidents that are read at once.
const MAX_CHANGED_ROWS: u32 = 1000;

impl Responder {
    /// Returns a page of incidents.
    ///
    /// # Errors
    /// Returns a problem if the state cannot be read.
    pub async fn list(&self, tenant: TenantId, query: IncidentQuery) -> Result<IncidentPage, Problem> {
        let (order, has_filter) = (order_of(query.sort, query.cursor), has_filter(&query));
        let batch = if has_filter { BATCH_ROWS } else { query.limit };
        let is_wanted = |row: &IncidentRow, workflow: &Workflow| {
            let found = summary(row, workflow);
            (!has_filter || matches(&query, &found, workflow)).then_some(found)
        };
        let limit = query.limit as usize;
        let (incidents, next) = self.scan(&tenant, (order, &query.states, batch), limit, is_wanted).await?;
        Ok(IncidentPage { incidents, next })
    }

    /// Returns a page of plans, the newest incident first.
    pub(super) async fn plans(&self, tenant: TenantId, query: PlanQuery) -> Result<PlanPage, Problem> {
        let states: &[IncidentState] = if query.pending { &[IncidentState::AwaitingApproval] } else { &[] };
        let order = order_of(IncidentSort::Newest, query.cursor);
        let plan = |row: &IncidentRow, workflow: &Workflow| {
            let (plan, plan_sha256) = workflow.plan.as_ref().zip(workflow.plan_sha256.as_ref())?;
            Some(PlanRow {
                incident_id: row.id(),
                state: row.state.to_string(),
                plan: plan_view(plan, plan_sha256, workflow),
                policy: policy_view(workflow),
                approval: workflow.approval.as_ref().map(approval_view),
            })
        };
        let limit = query.limit as usize;
        let (plans, next) = self.scan(&tenant, (order, states, BATCH_ROWS), limit, plan).await?;
        Ok(PlanPage { plans, next })
    }

    /// Reads incidents in an order until enough are found, or enough were looked at. Returns what was found, and where
    /// the next page begins; `None` at the end.
    async fn scan<T>(
        &self,
        tenant: &TenantId,
        (mut order, states, batch): (IncidentOrder, &[IncidentState], u32),
        limit: usize,
        find: impl Fn(&IncidentRow, &Workflow) -> Option<T>,
    ) -> Result<(Vec<T>, Option<i64>), Problem> {
        let (mut found, mut scanned) = (Vec::new(), 0);
        loop {
            let rows = self.store.incident_page(tenant, order, states, batch).await.map_err(store_problem)?;
            let is_last = rows.len() < batch as usize;
            let whole_batch = matches!(order, IncidentOrder::Updated(_));
            for (index, row) in rows.iter().enumerate() {
                scanned += 1;
                found.extend(find(row, &read_workflow(row)?));
                order = after(order, row);
                // Rows of the same time are of one page.
                let is_split = whole_batch && rows.get(index + 1).is_some_and(|next| after(order, next) == order);
                let is_full = found.len() >= limit && !is_split;
                if is_full && !(is_last && index + 1 == rows.len()) {
                    return Ok((found, Some(position(order))));
                }
            }
            if is_last {
                return Ok((found, None));
            }
            if scanned >= MAX_SCANNED_ROWS {
                return Ok((found, Some(position(order))));
            }
        }
    }

    /// Returns the history of an incident, oldest first.
    pub(super) async fn history(&self, tenant: TenantId, number: i64) -> Result<Vec<HistoryView>, Problem> {
        let (row, workflow) = self.find_incident(&tenant, number).await?;
        let transitions = self.store.history(&tenant, &row.key).await.map_err(store_problem)?;
        let view = |at: Timestamp, kind: &str, text: String| HistoryView {
            at,
            kind: kind.to_owned(),
            from: None,
            to: None,
            by: None,
            text,
        };
        let mut rows: Vec<HistoryView> = transitions
            .into_iter()
            .map(|row| HistoryView {
                from: row.from.map(|state| state.to_string()),
                to: Some(row.to.to_string()),
                ..view(row.at, "transition", row.note)
            })
            .collect();
        let incident = workflow.incident;
        rows.extend(incident.history.into_iter().map(|change| view(change.at, "change", change.text)));
        rows.extend(incident.comments.into_iter().map(|comment| HistoryView {
            by: Some(comment.by.to_string()),
            ..view(comment.at, "comment", comment.text)
        }));
        rows.sort_by_key(|row| row.at);
        Ok(rows)
    }

    /// Returns the incidents of all tenants that changed after a position, and some that changed shortly before; only
    /// the position without one.
    pub(super) async fn changed_incidents(&self, position: Option<i64>) -> Result<ChangedIncidents, Problem> {
        let Some(position) = position else {
            let last = self.store.last_incident_change().await.map_err(store_problem)?;
            return Ok((last.map_or(0, Timestamp::nanos), Vec::new()));
        };
        let after = Timestamp::from_nanos(position).minus(CHANGE_OVERLAP);
        let rows = self.store.incidents_changed_after(after, MAX_CHANGED_ROWS).await.map_err(store_problem)?;
        let next = rows.last().map_or(position, |row| row.updated_at.nanos().max(position));
        // One that another build has written is left out.
        let changed = rows.iter().filter_map(|row| Some((row.tenant.clone(), summary(row, &read_workflow(row).ok()?))));
        Ok((next, changed.collect()))
    }
}

fn order_of(sort: IncidentSort, cursor: Option<i64>) -> IncidentOrder {
    match sort {
        IncidentSort::Newest => IncidentOrder::Newest(cursor.unwrap_or(i64::MAX)),
        IncidentSort::Oldest => IncidentOrder::Oldest(cursor.unwrap_or(0)),
        IncidentSort::Updated => IncidentOrder::Updated(cursor.unwrap_or(i64::MAX)),
    }
}

/// The order, beginning after a row.
fn after(order: IncidentOrder, row: &IncidentRow) -> IncidentOrder {
    match order {
        IncidentOrder::Newest(_) => IncidentOrder::Newest(row.number),
        IncidentOrder::Oldest(_) => IncidentOrder::Oldest(row.number),
        IncidentOrder::Updated(_) => IncidentOrder::Updated(row.updated_at.millis()),
    }
}

const fn position(order: IncidentOrder) -> i64 {
    match order {
        IncidentOrder::Newest(position) | IncidentOrder::Oldest(position) | IncidentOrder::Updated(position) => {
            position
        }
    }
}

/// Whether incidents have to be looked at one by one.
const fn has_filter(query: &IncidentQuery) -> bool {
    !query.severities.is_empty()
        || query.entity.is_some()
        || query.owner.is_some()
        || query.since.is_some()
        || query.until.is_some()
        || !query.words.is_empty()
}

fn matches(query: &IncidentQuery, found: &IncidentSummary, workflow: &Workflow) -> bool {
    let severities = &query.severities;
    let owner = found.owner.as_deref().unwrap_or_default();
    (severities.is_empty() || severities.iter().any(|severity| severity.to_string() == found.severity))
        && query.entity.as_ref().is_none_or(|name| found.services.contains(name))
        && query.owner.as_ref().is_none_or(|wanted| wanted == owner)
        && query.since.is_none_or(|since| found.opened_at >= since)
        && query.until.is_none_or(|until| found.opened_at < until)
        && has_words(&query.words, found, workflow)
}

/// Whether an incident has all words, whatever their case.
fn has_words(words: &[String], found: &IncidentSummary, workflow: &Workflow) -> bool {
    if words.is_empty() {
        return true;
    }
    let mut texts = vec![found.id.to_lowercase(), found.title.to_lowercase()];
    texts.extend(workflow.incident.affected().iter().map(|entity| entity.to_string().to_lowercase()));
    texts.extend(workflow.incident.comments.iter().map(|comment| comment.text.to_lowercase()));
    let causes = workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.causes);
    texts.extend(causes.map(|cause| format!("{} {}", cause.rule, cause.reasoning).to_lowercase()));
    words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Comment, Entity, Incident, Principal, Severity};

    use super::*;

    fn incident(title: &str, comment: &str) -> (IncidentSummary, Workflow) {
        let at = Timestamp::from_millis(5000);
        let mut workflow = Workflow::new(Incident { title: title.into(), ..Incident::default() });
        workflow.incident.add_entity(&Entity::service("checkout"));
        let by = Principal::new("ann").unwrap();
        workflow.incident.comments.push(Comment { by, at, text: comment.into() });
        let row = IncidentRow {
            key: "k".into(),
            tenant: TenantId::main(),
            number: 7,
            state: IncidentState::Open,
            opened_at: at,
            updated_at: at,
            revision: 3,
            workflow: String::new(),
        };
        (summary(&row, &workflow), workflow)
    }

    #[test]
    fn every_filter_selects() {
        let (found, workflow) = incident("checkout: errors above normal", "The POOL was full");
        let is_found = |query: IncidentQuery| matches(&query, &found, &workflow);
        let words = |text: &str| IncidentQuery {
            words: text.split(' ').map(str::to_owned).collect(),
            ..IncidentQuery::default()
        };
        assert!(is_found(IncidentQuery::default()) && !has_filter(&IncidentQuery::default()));
        assert!(is_found(words("errors pool")) && is_found(words("inc-7")) && !is_found(words("errors database")));
        let entity = |name: &str| IncidentQuery { entity: Some(name.into()), ..IncidentQuery::default() };
        assert!(is_found(entity("checkout")) && !is_found(entity("check")));
        let owner = |name: &str| IncidentQuery { owner: Some(name.into()), ..IncidentQuery::default() };
        assert!(is_found(owner("")) && !is_found(owner("ann")));
        let severity = |severity| IncidentQuery { severities: vec![severity], ..IncidentQuery::default() };
        assert!(is_found(severity(Severity::Info)) && !is_found(severity(Severity::High)));
        let since = IncidentQuery { since: Some(found.opened_at), ..IncidentQuery::default() };
        let until = IncidentQuery { until: Some(found.opened_at), ..IncidentQuery::default() };
        assert!(is_found(since) && !is_found(until));
    }
}
