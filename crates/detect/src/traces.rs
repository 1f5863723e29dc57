//! Who called whom, from spans: the client's end of a call joined to the server's.
//!
//! Problem: the two ends come from two senders, in either order, and either may never come (a callee that
//! hangs sends nothing; one that is not instrumented never does). Model: an end that comes first waits for
//! the other for at least [`PATIENCE_MS`] of the telemetry's time. Where calls to an address went is learnt:
//! from then on a call is told as soon as its client has, so that one that hangs is not told last. An address
//! behind which several services answered is learnt as one that says nothing.
//!
//! Memory is bounded: waiting ends by number, in two generations, the older of which is given up as a whole.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use wardroom_domain::{Span, SpanKind};

/// How long an end of a call waits for the other, at least, in ms.
const PATIENCE_MS: i64 = 10_000;
/// Ends that may wait in one generation.
const WAITING: usize = 100_000;
/// Addresses of one tenant whose service is remembered.
const ADDRESSES: usize = 20_000;

/// Labels that say where a call went, if its other end does not; the first present counts.
const ADDRESS: [&str; 6] =
    ["server.address", "net.peer.name", "db.system.name", "db.system", "messaging.destination.name", "rpc.service"];

/// One call, as its client saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Who called.
    pub(crate) caller: u32,
    /// Who was called.
    pub(crate) callee: Callee,
    pub(crate) seconds: f64,
    pub(crate) failed: bool,
}

/// Who was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Callee {
    /// A service that reports itself.
    Known(u32),
    /// Something that does not, by the name the client has for it.
    Named(String),
}

type Id = ([u8; 16], [u8; 8]);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Client {
    service: u32,
    address: Option<String>,
    seconds: f64,
    failed: bool,
    /// The call was told already, by its address; the other end only confirms it.
    told: bool,
}

/// A generation of waiting ends.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Waiting {
    clients: HashMap<Id, Client>,
    /// The service that served the call of this client span.
    servers: HashMap<Id, u32>,
}

/// The calls of one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Traces {
    young: Waiting,
    old: Waiting,
    turned_ms: i64,
    /// Caller and address → service; nothing for several.
    learnt: BTreeMap<(u32, String), Option<u32>>,
}

impl Traces {
    /// Takes one span of a service, and tells the calls that are clear now.
    pub(crate) fn observe(&mut self, span: &Span, service: u32, failed: bool, told: &mut Vec<Call>) {
        let end_ms = span.end.millis();
        if end_ms >= self.turned_ms + PATIENCE_MS || self.young.clients.len() + self.young.servers.len() >= WAITING {
            self.turn(end_ms, told);
        }
        match span.kind {
            SpanKind::Client | SpanKind::Producer => {
                let (seconds, id) = (span.seconds(), (span.trace_id, span.span_id));
                let mut client = Client { service, address: address(span), seconds, failed, told: false };
                if let Some(name) = span.labels.get("peer.service") {
                    told.push(client.call(Callee::Named(name.to_owned())));
                } else if let Some(callee) = self.young.servers.remove(&id).or_else(|| self.old.servers.remove(&id)) {
                    told.extend(self.joined(client, callee));
                } else {
                    if let Some(callee) = self.learnt_of(&client) {
                        client.told = true;
                        told.extend(client.clone().to(callee));
                    }
                    self.young.clients.insert(id, client);
                }
            }
            SpanKind::Server | SpanKind::Consumer if span.parent_id != [0; 8] => {
                let id = (span.trace_id, span.parent_id);
                match self.young.clients.remove(&id).or_else(|| self.old.clients.remove(&id)) {
                    Some(client) => told.extend(self.joined(client, service)),
                    None => {
                        self.young.servers.insert(id, service);
                    }
                }
            }
            SpanKind::Internal | SpanKind::Server | SpanKind::Consumer => {}
        }
    }

    /// Both ends are there.
    fn joined(&mut self, client: Client, callee: u32) -> Option<Call> {
        if let Some(address) = &client.address {
            let full = self.learnt.len() >= ADDRESSES;
            match self.learnt.get_mut(&(client.service, address.clone())) {
                Some(known) if *known != Some(callee) => *known = None,
                None if !full => {
                    self.learnt.insert((client.service, address.clone()), Some(callee));
                }
                Some(_) | None => {}
            }
        }
        if client.told { None } else { client.to(callee) }
    }

    fn learnt_of(&self, client: &Client) -> Option<u32> {
        let address = client.address.clone()?;
        self.learnt.get(&(client.service, address)).copied().flatten()
    }

    /// Gives up the older generation: its clients' other ends will not come.
    fn turn(&mut self, now_ms: i64, told: &mut Vec<Call>) {
        self.turned_ms = self.turned_ms.max(now_ms);
        let given_up = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        let mut clients: Vec<(Id, Client)> = given_up.clients.into_iter().collect();
        clients.sort_unstable_by_key(|(id, _)| *id);
        for (_, mut client) in clients.into_iter().filter(|(_, client)| !client.told) {
            let learnt = self.learnt_of(&client);
            match (learnt, client.address.take()) {
                (Some(callee), _) => told.extend(client.to(callee)),
                (None, Some(address)) => told.push(client.call(Callee::Named(address))),
                (None, None) => {}
            }
        }
    }
}

impl Client {
    /// A call to a service that reports itself; one that calls itself is one service.
    fn to(self, callee: u32) -> Option<Call> {
        (self.service != callee).then(|| self.call(Callee::Known(callee)))
    }

    fn call(self, callee: Callee) -> Call {
        Call { caller: self.service, callee, seconds: self.seconds, failed: self.failed }
    }
}

fn address(span: &Span) -> Option<String> {
    let name = ADDRESS.iter().find_map(|label| span.labels.get(label))?;
    let port = span.labels.get("server.port").or_else(|| span.labels.get("net.peer.port"));
    Some(port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}")))
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
        Call { caller: 7, callee, seconds: 0.25, failed: false }
    }

    #[test]
    fn the_ends_are_joined_in_either_order() {
        for client_first in [true, false] {
            let (mut traces, mut told) = (Traces::default(), Vec::new());
            let client = span(SpanKind::Client, 2, 1, 1000, &[]);
            let server = span(SpanKind::Server, 3, 2, 990, &[]);
            let mut both = [(&client, 7), (&server, 9)];
            if !client_first {
                both.reverse();
            }
            both.iter().for_each(|(span, service)| traces.observe(span, *service, false, &mut told));
            assert_eq!(told, [call(Callee::Known(9))]);
        }
    }

    #[test]
    fn a_call_never_answered_is_laid_at_the_door_it_went_to_before() {
        let (mut traces, mut told) = (Traces::default(), Vec::new());
        let at = [("server.address", "10.0.0.1"), ("server.port", "80")];
        traces.observe(&span(SpanKind::Client, 2, 1, 1000, &at), 7, false, &mut told);
        traces.observe(&span(SpanKind::Server, 3, 2, 990, &[]), 9, false, &mut told);
        traces.observe(&span(SpanKind::Client, 4, 1, 2000, &at), 7, false, &mut told);
        traces.observe(&span(SpanKind::Client, 5, 1, 2000, &[("server.address", "db")]), 7, false, &mut told);
        assert_eq!(told, [call(Callee::Known(9)), call(Callee::Known(9))], "at once, not when patience ends");
        for end_ms in [20_000, 40_000] {
            traces.observe(&span(SpanKind::Internal, 8, 1, end_ms, &[]), 7, false, &mut told);
        }
        assert_eq!(told[2..], [call(Callee::Named("db".into()))]);
    }

    #[test]
    fn an_address_with_several_services_behind_it_says_nothing() {
        let (mut traces, mut told) = (Traces::default(), Vec::new());
        let at = [("server.address", "gateway")];
        for (client, server, service) in [(2, 3, 9), (4, 5, 9), (6, 7, 8), (8, 9, 8)] {
            traces.observe(&span(SpanKind::Client, client, 1, 1000, &at), 7, false, &mut told);
            traces.observe(&span(SpanKind::Server, server, client, 990, &[]), service, false, &mut told);
        }
        let known = |callee: u32| call(Callee::Known(callee));
        // The third was told by what its address had meant so far.
        assert_eq!(told, [known(9), known(9), known(9), known(8)]);
    }

    #[test]
    fn the_senders_own_name_for_its_peer_counts_at_once() {
        let (mut traces, mut told) = (Traces::default(), Vec::new());
        traces.observe(&span(SpanKind::Producer, 2, 1, 1000, &[("peer.service", "queue")]), 7, false, &mut told);
        assert_eq!(told, [call(Callee::Named("queue".into()))]);
    }
}
