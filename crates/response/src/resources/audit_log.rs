//! Reads of the audit log: a tenant sees its own entries; the tenant `main` exports all of them.

use serde_json::Value;
use wardroom_api::{AuditEntryView, AuditPage, AuditQuery, AuditVerification};
use wardroom_domain::TenantId;
use wardroom_domain::audit::AuditEntry;
use wardroom_edge::Problem;
use wardroom_store::AuditRow;

use crate::problem_responses::store_problem;
use crate::responder::Responder;

/// Entries that are read at once.
const BATCH_ROWS: u32 = 1000;
/// Maximum number of entries that one page looks at.
const MAX_SCANNED_ROWS: usize = 20_000;

impl Responder {
    /// Returns a page of the audit log, newest first.
    pub(super) async fn audit_page(&self, tenant: TenantId, query: AuditQuery) -> Result<AuditPage, Problem> {
        let (mut before, mut entries, mut scanned) = (query.cursor.unwrap_or(i64::MAX), Vec::new(), 0);
        loop {
            let rows = self.store.audit_before(before, BATCH_ROWS).await.map_err(store_problem)?;
            let is_last = rows.len() < BATCH_ROWS as usize;
            for row in rows {
                (before, scanned) = (row.sequence, scanned + 1);
                let Ok(entry) = serde_json::from_str::<AuditEntry>(&row.text) else { continue };
                if entry.tenant == tenant && is_wanted(&query, &entry) {
                    entries.push(view(row, false));
                }
                if entries.len() >= query.limit as usize {
                    return Ok(AuditPage { entries, next: Some(before).filter(|before| *before > 1) });
                }
            }
            if is_last {
                return Ok(AuditPage { entries, next: None });
            }
            if scanned >= MAX_SCANNED_ROWS {
                return Ok(AuditPage { entries, next: Some(before) });
            }
        }
    }

    /// Returns one entry of the tenant.
    pub(super) async fn audit_entry(&self, tenant: TenantId, sequence: i64) -> Result<Option<AuditEntryView>, Problem> {
        let rows = self.store.audit_from(sequence, 1).await.map_err(store_problem)?;
        let own = rows.into_iter().find(|row| row.sequence == sequence && is_of(&tenant, row));
        Ok(own.map(|row| view(row, true)))
    }

    /// Returns entries from a number on, oldest first, and the number to go on at.
    pub(super) async fn export_audit(
        &self,
        tenant: TenantId,
        first: i64,
    ) -> Result<(Vec<AuditEntryView>, Option<i64>), Problem> {
        let rows = self.store.audit_from(first, BATCH_ROWS).await.map_err(store_problem)?;
        let next = rows.last().filter(|_| rows.len() >= BATCH_ROWS as usize).map(|row| row.sequence.saturating_add(1));
        let shown = rows.into_iter().filter(|row| tenant == TenantId::main() || is_of(&tenant, row));
        Ok((shown.map(|row| view(row, true)).collect(), next))
    }

    /// Verifies the chain.
    pub(super) async fn verify_audit(&self) -> Result<AuditVerification, Problem> {
        let found = self.store.verify_audit().await.map_err(store_problem)?;
        Ok(AuditVerification { entries: found.entries, ok: found.ok, first_broken: found.first_broken })
    }
}

fn is_of(tenant: &TenantId, row: &AuditRow) -> bool {
    serde_json::from_str::<AuditEntry>(&row.text).is_ok_and(|entry| entry.tenant == *tenant)
}

fn is_wanted(query: &AuditQuery, entry: &AuditEntry) -> bool {
    query.since.is_none_or(|since| entry.at >= since)
        && query.until.is_none_or(|until| entry.at < until)
        && query.action.as_ref().is_none_or(|action| *action == entry.action)
        && query.principal.as_ref().is_none_or(|principal| principal == entry.principal.as_str())
        && query.incident.as_ref().is_none_or(|incident| Some(incident) == entry.incident_id.as_ref())
}

fn view(row: AuditRow, with_text: bool) -> AuditEntryView {
    let AuditRow { sequence, text, hash } = row;
    let entry = serde_json::from_str(&text).unwrap_or(Value::Null);
    AuditEntryView { sequence, hash, entry, text: Some(text).filter(|_| with_text) }
}
