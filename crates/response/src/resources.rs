//! The resources of the API that are read as a whole: pages of incidents and plans, what detection knows, the audit
//! log, tokens, and what the server runs with.
//!
//! Each is a method of the responder, which has what they need; [`resources`] makes them the closures of the API.

mod administration;
mod audit_log;
mod detected;
mod incident_pages;
mod keyed_requests;

use std::sync::Arc;

use tokio::sync::watch;
use wardroom_api::{Ask, RequestsBackend, ResourcesBackend, StreamLimits};
use wardroom_edge::Problem;

use crate::resources::administration::describe_tools;
use crate::responder::Responder;

/// What the streams of the API need besides the responder.
pub struct StreamControl {
    /// Returns whether the credential of a request is still valid.
    pub is_valid: Arc<dyn Fn(&wardroom_edge::HeaderMap) -> bool + Send + Sync>,
    /// True when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl std::fmt::Debug for StreamControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamControl").finish_non_exhaustive()
    }
}

/// Returns a closure that asks the responder.
fn ask<A, T, F>(
    responder: &Arc<Responder>,
    answer: impl Fn(Arc<Responder>, A) -> F + Send + Sync + 'static,
) -> Ask<A, T>
where
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let responder = Arc::clone(responder);
    Arc::new(move |question| Box::pin(answer(Arc::clone(&responder), question)))
}

/// Builds the closures of the further resources.
pub fn resources(responder: &Arc<Responder>, control: StreamControl) -> ResourcesBackend {
    ResourcesBackend {
        history: ask(responder, |it, (tenant, number)| async move { it.history(tenant, number).await }),
        create_incident: ask(
            responder,
            |it, (caller, request)| async move { it.create_incident(caller, request).await },
        ),
        split_incident: ask(responder, |it, (caller, request)| async move { it.split_incident(caller, request).await }),
        events: ask(responder, |it, (tenant, since, until)| async move { it.events(tenant, since, until).await }),
        entities: ask(responder, |it, tenant| async move { it.entities(tenant).await }),
        topology: ask(responder, |it, (tenant, query)| async move { it.topology(tenant, query).await }),
        signals: ask(responder, |it, (tenant, query)| async move { it.signals(tenant, query).await }),
        plans: ask(responder, |it, (tenant, query)| async move { it.plans(tenant, query).await }),
        policy: ask(responder, |it, ()| async move { Ok(it.policy_rules()) }),
        targets: ask(responder, |it, tenant| async move { it.targets(tenant).await }),
        tools: ask(responder, |_, ()| async move { describe_tools().await }),
        approvers: ask(responder, |it, tenant| async move { it.approvers(tenant).await }),
        audit: ask(responder, |it, (tenant, query)| async move { it.audit_page(tenant, query).await }),
        audit_entry: ask(responder, |it, (tenant, sequence)| async move { it.audit_entry(tenant, sequence).await }),
        export_audit: ask(responder, |it, (tenant, first)| async move { it.export_audit(tenant, first).await }),
        verify_audit: ask(responder, |it, ()| async move { it.verify_audit().await }),
        tokens: ask(responder, |it, caller| async move { it.tokens(caller).await }),
        create_token: ask(responder, |it, (caller, token)| async move { it.create_token(caller, token).await }),
        revoke_token: ask(responder, |it, (caller, id)| async move { it.revoke_token(caller, id).await }),
        tenants: ask(responder, |it, caller| async move { it.tenant_names(caller).await }),
        configuration: ask(responder, |it, caller| async move { it.configuration(&caller) }),
        changed_incidents: ask(responder, |it, position| async move { it.changed_incidents(position).await }),
        live_tenants: ask(responder, |it, ()| async move { Ok(it.live_tenants()) }),
        stream_limits: StreamLimits {
            total: responder.config.edge.max_streams,
            per_tenant: responder.config.edge.max_streams_per_tenant,
            per_principal: responder.config.edge.max_streams_per_principal,
        },
        incident_changes: responder.store.subscribe_incidents(),
        is_valid: control.is_valid,
        stopping: control.stopping,
    }
}

/// Builds the closures that remember requests with a key.
pub fn requests(responder: &Arc<Responder>) -> RequestsBackend {
    RequestsBackend {
        begin: ask(responder, |it, keyed| async move { it.begin_request(keyed).await }),
        end: ask(responder, |it, (keyed, answer)| async move { it.end_request(keyed, answer).await }),
    }
}
