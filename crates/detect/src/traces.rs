//! The call graph from spans: joins the client span of a call with its server span.
//!
//! The two spans come from two senders, in either order, and either may be missing (a callee that hangs sends nothing;
//! one without instrumentation never does). The first span of a pair is kept for at least [`MATCH_TIMEOUT_MS`] of
//! event time. The service behind an address is learnt from joined pairs: from then on a call to this address is
//! reported as soon as its client span arrives, so that a hanging call is not reported late. An address that several
//! services responded from is ambiguous and no longer used.
//!
//! Memory is bounded: pending spans are limited in number and kept in two generations; the older is evicted whole.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use wardroom_domain::{Entity, EntityKind, Span, SpanKind};

/// An unmatched span is kept for at least this long, in ms.
const MATCH_TIMEOUT_MS: i64 = 10_000;
/// Pending spans of one generation.
const MAX_PENDING_SPANS: usize = 100_000;
/// Learnt addresses of one tenant.
const MAX_ADDRESSES: usize = 20_000;
/// Maximum length of an address that is used, in bytes. A host name has at most 253 characters.
const MAX_ADDRESS_BYTES: usize = 320;

/// Labels of a client span that name its target, used if there is no server span; the first present one wins.
const ADDRESS_LABELS: [&str; 6] =
    ["server.address", "net.peer.name", "db.system.name", "db.system", "messaging.destination.name", "rpc.service"];

/// One call, as measured by the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The caller.
    pub(crate) caller: u32,
    /// What is called.
    pub(crate) callee: Callee,
    /// End of the client's span, in ms.
    pub(crate) at_ms: i64,
    pub(crate) seconds: f64,
    pub(crate) failed: bool,
}

/// The target of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Callee {
    /// An entity that sends spans.
    Known(u32),
    /// A target without spans, by what the client says of it.
    Named(Entity),
}

type Id = ([u8; 16], [u8; 8]);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Client {
    service: u32,
    address: Option<String>,
    /// The target, as the client names it.
    peer: Option<Entity>,
    at_ms: i64,
    seconds: f64,
    failed: bool,
    /// The call was already reported by its address; the server span only confirms it.
    reported: bool,
}

/// A generation of unmatched spans.
#[derive(Debug, Default, Serialize, Deserialize)]
struct PendingSpans {
    clients: HashMap<Id, Client>,
    /// Client span id → service of its server span.
    servers: HashMap<Id, u32>,
}

/// The span matcher of one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Traces {
    young: PendingSpans,
    old: PendingSpans,
    rotated_ms: i64,
    /// (Caller, address) → service; `None` if ambiguous.
    callee_by_address: BTreeMap<(u32, String), Option<u32>>,
}

impl Traces {
    /// Adds a span of a service; appends the calls that are complete now to `calls`. `peer` is the target that a client
    /// span names, and `end_ms` the end of the span, capped by the time of arrival.
    pub(crate) fn observe(
        &mut self,
        span: &Span,
        (service, peer): (u32, Option<Entity>),
        end_ms: i64,
        failed: bool,
        calls: &mut Vec<Call>,
    ) {
        if end_ms >= self.rotated_ms + MATCH_TIMEOUT_MS
            || self.young.clients.len() + self.young.servers.len() >= MAX_PENDING_SPANS
        {
            self.rotate(end_ms, calls);
        }
        match span.kind {
            SpanKind::Client | SpanKind::Producer => {
                let (seconds, id) = (span.seconds(), (span.trace_id, span.span_id));
                let address = address(span);
                let mut client = Client { service, address, peer, at_ms: end_ms, seconds, failed, reported: false };
                if let Some(named) = client.peer.take_if(|peer| !may_send_spans(peer, span)) {
                    calls.push(client.call(Callee::Named(named)));
                } else if let Some(callee) = self.young.servers.remove(&id).or_else(|| self.old.servers.remove(&id)) {
                    calls.extend(self.join_spans(client, callee));
                } else {
                    if let Some(callee) = self.known_callee(&client) {
                        client.reported = true;
                        calls.extend(client.clone().call_to(callee));
                    }
                    self.young.clients.insert(id, client);
                }
            }
            SpanKind::Server | SpanKind::Consumer if span.parent_id != [0; 8] => {
                let id = (span.trace_id, span.parent_id);
                match self.young.clients.remove(&id).or_else(|| self.old.clients.remove(&id)) {
                    Some(client) => calls.extend(self.join_spans(client, service)),
                    None => {
                        self.young.servers.insert(id, service);
                    }
                }
            }
            SpanKind::Internal | SpanKind::Server | SpanKind::Consumer => {}
        }
    }

    /// Maps services to their new ids; what belongs to an evicted service is dropped.
    pub(crate) fn renumber_services(&mut self, new_id: impl Fn(u32) -> Option<u32>) {
        for pending in [&mut self.young, &mut self.old] {
            pending.clients.retain(|_, client| new_id(client.service).map(|new| client.service = new).is_some());
            pending.servers.retain(|_, service| new_id(*service).map(|new| *service = new).is_some());
        }
        let known = std::mem::take(&mut self.callee_by_address).into_iter();
        let renumbered = |((caller, address), callee): ((u32, String), Option<u32>)| {
            // An ambiguous address stays ambiguous.
            let callee = match callee {
                Some(callee) => Some(new_id(callee)?),
                None => None,
            };
            Some(((new_id(caller)?, address), callee))
        };
        self.callee_by_address = known.filter_map(renumbered).collect();
    }

    /// Both spans of a call are known: learns the address and returns the call unless it was reported before.
    fn join_spans(&mut self, client: Client, callee: u32) -> Option<Call> {
        if let Some(address) = &client.address {
            let full = self.callee_by_address.len() >= MAX_ADDRESSES;
            match self.callee_by_address.get_mut(&(client.service, address.clone())) {
                Some(known) if *known != Some(callee) => *known = None,
                None if !full => {
                    self.callee_by_address.insert((client.service, address.clone()), Some(callee));
                }
                Some(_) | None => {}
            }
        }
        if client.reported { None } else { client.call_to(callee) }
    }

    fn known_callee(&self, client: &Client) -> Option<u32> {
        let address = client.address.clone()?;
        self.callee_by_address.get(&(client.service, address)).copied().flatten()
    }

    /// Evicts the older generation and reports its client spans, whose server spans have not arrived in time.
    fn rotate(&mut self, now_ms: i64, calls: &mut Vec<Call>) {
        self.rotated_ms = self.rotated_ms.max(now_ms);
        let expired = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        let mut clients: Vec<(Id, Client)> = expired.clients.into_iter().collect();
        clients.sort_unstable_by_key(|(id, _)| *id);
        for (_, mut client) in clients.into_iter().filter(|(_, client)| !client.reported) {
            let callee = self.known_callee(&client);
            match (callee, client.peer.take()) {
                (Some(callee), _) => calls.extend(client.call_to(callee)),
                (None, Some(peer)) => calls.push(client.call(Callee::Named(peer))),
                (None, None) => {}
            }
        }
    }
}

impl Client {
    /// Returns a call to a known service; `None` if a service calls itself.
    fn call_to(self, callee: u32) -> Option<Call> {
        (self.service != callee).then(|| self.call(Callee::Known(callee)))
    }

    fn call(self, callee: Callee) -> Call {
        Call { caller: self.service, callee, at_ms: self.at_ms, seconds: self.seconds, failed: self.failed }
    }
}

/// Returns whether the target of a call may send a span of its own, which says better what it is. A service that the
/// client names is believed; databases, caches and queues send no spans.
fn may_send_spans(peer: &Entity, span: &Span) -> bool {
    let is_named = span.labels.get("peer.service").is_some();
    !is_named && !matches!(peer.kind, EntityKind::Database | EntityKind::Cache | EntityKind::Queue)
}

fn address(span: &Span) -> Option<String> {
    let name = ADDRESS_LABELS.iter().find_map(|label| span.labels.get(label))?;
    let port = span.labels.get("server.port").or_else(|| span.labels.get("net.peer.port"));
    let address = port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    (address.len() <= MAX_ADDRESS_BYTES).then_some(address)
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Labels, Timestamp};

    use super::*;

    fn span(kind: SpanKind, id: u8, parent: u8, end_ms: i64, labels: &[(&str, &str)]) -> Span {
        Span {
            trace_id: [1; 16],
            span_id: [id; 8],
            parent_id: [parent; 8],
            kind,
            name: "call".into(),
            start: Timestamp::from_millis(end_ms - 250),
            end: Timestamp::from_millis(end_ms),
            failed: false,
            labels: Labels::of(labels),
        }
    }

    fn call(callee: Callee) -> Call {
        Call { caller: 7, callee, at_ms: 1000, seconds: 0.25, failed: false }
    }

    fn host(name: &str) -> Entity {
        Entity::named(EntityKind::External, name)
    }

    fn observe(traces: &mut Traces, span: &Span, service: u32, calls: &mut Vec<Call>) {
        let peer = span.labels.get("peer.service").map(Entity::service);
        let peer = peer.or_else(|| span.labels.get("server.address").map(host));
        traces.observe(span, (service, peer), span.end.millis(), false, calls);
        calls.iter_mut().for_each(|call| call.at_ms = 1000);
    }

    #[test]
    fn joins_client_and_server_spans_in_either_order() {
        for client_first in [true, false] {
            let (mut traces, mut calls) = (Traces::default(), Vec::new());
            let client = span(SpanKind::Client, 2, 1, 1000, &[]);
            let server = span(SpanKind::Server, 3, 2, 990, &[]);
            let mut spans = [(&client, 7), (&server, 9)];
            if !client_first {
                spans.reverse();
            }
            spans.iter().for_each(|(span, service)| observe(&mut traces, span, *service, &mut calls));
            assert_eq!(calls, [call(Callee::Known(9))]);
        }
    }

    #[test]
    fn a_call_without_a_response_is_attributed_to_the_known_service_of_its_address() {
        let (mut traces, mut calls) = (Traces::default(), Vec::new());
        let address = [("server.address", "10.0.0.1"), ("server.port", "80")];
        observe(&mut traces, &span(SpanKind::Client, 2, 1, 1000, &address), 7, &mut calls);
        observe(&mut traces, &span(SpanKind::Server, 3, 2, 990, &[]), 9, &mut calls);
        observe(&mut traces, &span(SpanKind::Client, 4, 1, 2000, &address), 7, &mut calls);
        observe(&mut traces, &span(SpanKind::Client, 5, 1, 2000, &[("server.address", "db")]), 7, &mut calls);
        assert_eq!(calls, [call(Callee::Known(9)), call(Callee::Known(9))], "at once, not after the timeout");
        for end_ms in [20_000, 40_000] {
            observe(&mut traces, &span(SpanKind::Internal, 8, 1, end_ms, &[]), 7, &mut calls);
        }
        assert_eq!(calls[2..], [call(Callee::Named(host("db")))]);
    }

    #[test]
    fn an_address_of_several_services_is_ambiguous() {
        let (mut traces, mut calls) = (Traces::default(), Vec::new());
        let address = [("server.address", "gateway")];
        for (client, server, service) in [(2, 3, 9), (4, 5, 9), (6, 7, 8), (8, 9, 8)] {
            observe(&mut traces, &span(SpanKind::Client, client, 1, 1000, &address), 7, &mut calls);
            observe(&mut traces, &span(SpanKind::Server, server, client, 990, &[]), service, &mut calls);
        }
        let known = |callee: u32| call(Callee::Known(callee));
        // The third call was attributed to the service known for this address at that time.
        assert_eq!(calls, [known(9), known(9), known(9), known(8)]);
    }

    #[test]
    fn a_long_address_is_not_used() {
        let (mut traces, mut calls) = (Traces::default(), Vec::new());
        let long = "x".repeat(MAX_ADDRESS_BYTES + 1);
        observe(&mut traces, &span(SpanKind::Client, 2, 1, 1000, &[("server.address", &long)]), 7, &mut calls);
        assert!(traces.young.clients.values().all(|client| client.address.is_none()));
        observe(&mut traces, &span(SpanKind::Server, 3, 2, 990, &[]), 9, &mut calls);
        assert_eq!(calls, [call(Callee::Known(9))], "the call is still joined");
    }

    #[test]
    fn peer_service_names_the_callee_at_once() {
        let (mut traces, mut calls) = (Traces::default(), Vec::new());
        observe(&mut traces, &span(SpanKind::Producer, 2, 1, 1000, &[("peer.service", "queue")]), 7, &mut calls);
        assert_eq!(calls, [call(Callee::Named(Entity::service("queue")))]);
    }
}
