//! Open connections: their number is limited, and an idle one makes room for a new one.
//!
//! Problem: a client that opens connections and sends nothing uses up descriptors and memory until no other client can
//! connect, a health check included. Model: each connection knows since when it waits for its client. At the limit of
//! an address, the connection of this address that has waited longest is closed; at the limit of all, the one of the
//! address with the most connections. A connection whose request is being handled is never closed. Guarantee: a new
//! connection is refused only while every other one is handling a request, and clients of the same machine keep
//! [`LOOPBACK_RESERVE`] connections for themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::Config;
use crate::metrics as names;

/// Connections that only clients of the same machine may use, so that health checks succeed under load.
const LOOPBACK_RESERVE: usize = 16;

/// The first bytes of an HTTP/2 connection.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// All open connections of a port; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionTable {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_connections: usize,
    max_per_address: usize,
    started_at: Instant,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next_id: u64,
    by_id: BTreeMap<u64, (IpAddr, Arc<ConnectionState>)>,
    per_address: BTreeMap<IpAddr, usize>,
}

/// What a connection is doing. Times are milliseconds since the table was created.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    started_at: Instant,
    /// Requests being handled.
    running: AtomicU32,
    /// Requests whose body has not been received completely.
    receiving: AtomicU32,
    /// When a request last began or ended or a response was last written.
    active_at: AtomicU64,
    /// When the first byte of a request's head arrived; 0 between requests.
    head_at: AtomicU64,
    /// Whether any byte has arrived.
    has_read: AtomicBool,
    is_http2: AtomicBool,
    evicted: Notify,
}

/// A place in the table, released on drop.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    id: u64,
    table: ConnectionTable,
    state: Arc<ConnectionState>,
}

impl ConnectionTable {
    pub(crate) fn new(config: &Config) -> Self {
        let shared = Shared {
            max_connections: config.max_connections.max(1),
            max_per_address: config.max_connections_per_address.max(1),
            started_at: Instant::now(),
            open: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Registers a new connection; `None` if it is refused. May close a connection that waits for its client.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let limits = &*self.shared;
        let (is_loopback, address) = (address.to_canonical().is_loopback(), client_of(address));
        let mut open = self.open();
        let of_address = open.per_address.get(&address).copied().unwrap_or(0);
        // Not refused on loopback: health checks come from there, and a reverse proxy may have as many requests.
        if of_address >= limits.max_per_address && !open.evict(Some(address)) && !is_loopback {
            return refuse("per_address");
        }
        let reserve = if is_loopback { 0 } else { LOOPBACK_RESERVE.min(limits.max_connections / 2) };
        if open.by_id.len() >= limits.max_connections - reserve && !open.evict(None) {
            return refuse("total");
        }
        let state = Arc::new(ConnectionState::new(limits.started_at));
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, (address, Arc::clone(&state)));
        *open.per_address.entry(address).or_default() += 1;
        metrics::gauge!(names::CONNECTIONS).set(open.by_id.len() as f64);
        Some(ConnectionPermit { id, table: self.clone(), state })
    }

    /// Closes the connection that has waited longest for its client, if there is one.
    pub(crate) fn evict_one(&self) {
        self.open().evict(None);
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    /// Closes a connection that waits for its client: of this address, or of the address with the most connections.
    /// Returns whether there was one.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let count = |address: &IpAddr| self.per_address.get(address).copied().unwrap_or(0);
        let candidates = self
            .by_id
            .iter()
            .filter(|(_, (from, state))| address.is_none_or(|address| *from == address) && state.waits_for_client());
        // Of equal age, the older connection.
        let longest = candidates.min_by_key(|(id, (from, state))| {
            (std::cmp::Reverse(count(from)), state.active_at.load(Ordering::Relaxed), **id)
        });
        let Some((id, _)) = longest else { return false };
        let id = *id;
        if let Some(state) = self.remove(id) {
            metrics::counter!(names::CONNECTIONS_CLOSED_TOTAL, "reason" => "evicted").increment(1);
            state.evicted.notify_one();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Arc<ConnectionState>> {
        let (address, state) = self.by_id.remove(&id)?;
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
        Some(state)
    }
}

impl ConnectionState {
    fn new(started_at: Instant) -> Self {
        let state = Self {
            started_at,
            running: AtomicU32::new(0),
            receiving: AtomicU32::new(0),
            active_at: AtomicU64::new(0),
            head_at: AtomicU64::new(0),
            has_read: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            evicted: Notify::new(),
        };
        state.touch();
        // Until the first request is complete, the protocol is unknown and the header timeout applies.
        state.head_at.store(state.now_ms(), Ordering::Relaxed);
        state
    }

    /// Called when the head of a request has been received.
    pub(crate) fn request_began(&self, is_http2: bool) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.is_http2.store(is_http2, Ordering::Relaxed);
        self.head_at.store(0, Ordering::Relaxed);
        self.touch();
    }

    /// Called when the response to a request has been handed to the connection, or the request was cancelled.
    pub(crate) fn request_ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    /// Called when a request has a body that is not complete yet.
    pub(crate) fn body_began(&self) {
        self.receiving.fetch_add(1, Ordering::Relaxed);
    }

    /// Called when a body is complete or no longer needed.
    pub(crate) fn body_ended(&self) {
        self.receiving.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    /// Called when bytes have been read.
    pub(crate) fn bytes_read(&self, bytes: &[u8]) {
        // A client may connect long before its first request, as gRPC's do; only the idle timeout applies then.
        if !self.has_read.swap(true, Ordering::Relaxed) && bytes.starts_with(HTTP2_PREFACE) {
            self.is_http2.store(true, Ordering::Relaxed);
            self.head_at.store(0, Ordering::Relaxed);
            self.touch();
        }
        let is_between = self.running.load(Ordering::Relaxed) == 0 && self.receiving.load(Ordering::Relaxed) == 0;
        if is_between && !self.is_http2.load(Ordering::Relaxed) {
            let now = self.now_ms();
            let _began_before = self.head_at.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Called when part of a response has been written.
    pub(crate) fn touch(&self) {
        self.active_at.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Returns why the connection must be closed now, if it must.
    pub(crate) fn expired(&self, header_timeout: Duration, idle_timeout: Duration) -> Option<&'static str> {
        if self.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let since = |at: &AtomicU64| Duration::from_millis(self.now_ms().saturating_sub(at.load(Ordering::Relaxed)));
        if self.head_at.load(Ordering::Relaxed) > 0 && since(&self.head_at) >= header_timeout {
            return Some("header_timeout");
        }
        (since(&self.active_at) >= idle_timeout).then_some("idle")
    }

    /// Resolves when another connection needs the place of this one.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn waits_for_client(&self) -> bool {
        self.running.load(Ordering::Relaxed) <= self.receiving.load(Ordering::Relaxed)
    }

    /// At least 1, because 0 means never.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl ConnectionPermit {
    pub(crate) fn state(&self) -> Arc<ConnectionState> {
        Arc::clone(&self.state)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.table.open();
        open.remove(self.id);
        metrics::gauge!(names::CONNECTIONS).set(open.by_id.len() as f64);
    }
}

fn refuse(reason: &'static str) -> Option<ConnectionPermit> {
    metrics::counter!(names::CONNECTIONS_REFUSED_TOTAL, "reason" => reason).increment(1);
    None
}

/// Returns the address that counts as one client: an IPv4 address, or the first 64 bits of an IPv6 address, of which a
/// client usually has all.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(total: usize, per_address: usize) -> ConnectionTable {
        ConnectionTable::new(&Config {
            max_connections: total,
            max_connections_per_address: per_address,
            ..Config::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn at_the_limit_of_an_address_its_longest_waiting_connection_is_closed() {
        let table = table(100, 2);
        let first = table.admit(address("10.0.0.1")).unwrap();
        first.state.active_at.store(1, Ordering::Relaxed);
        let second = table.admit(address("10.0.0.1")).unwrap();
        second.state.active_at.store(2, Ordering::Relaxed);
        let other = table.admit(address("10.0.0.2")).unwrap();
        first.state.request_began(false);
        let third = table.admit(address("::ffff:10.0.0.1")).unwrap();
        let is_open = |permit: &ConnectionPermit| table.open().by_id.contains_key(&permit.id);
        assert!(is_open(&first) && !is_open(&second) && is_open(&other) && is_open(&third));
        third.state.request_began(false);
        assert!(table.admit(address("10.0.0.1")).is_none(), "every connection of the address is handling a request");
        // A request whose body has not arrived waits for its client.
        first.state.body_began();
        assert!(table.admit(address("10.0.0.1")).is_some());
        assert!(!is_open(&first));
    }

    #[test]
    fn at_the_limit_of_all_the_address_with_most_connections_loses_one() {
        let table = table(12, 100);
        let few: Vec<_> = (1..3).map(|host| table.admit(address(&format!("10.0.1.{host}"))).unwrap()).collect();
        let many: Vec<_> = (0..4).map(|_| table.admit(address("2001:db8::1")).unwrap()).collect();
        let _fifth = table.admit(address("10.0.2.1")).unwrap();
        let is_open = |permit: &ConnectionPermit| table.open().by_id.contains_key(&permit.id);
        let open = |permits: &[ConnectionPermit]| permits.iter().filter(|permit| is_open(permit)).count();
        assert_eq!((open(&few), open(&many)), (2, 3));
    }

    #[test]
    fn loopback_connects_while_other_addresses_use_all_their_connections() {
        let table = table(8, 100);
        let begin = |permit: &ConnectionPermit| permit.state.request_began(true);
        let busy: Vec<_> = (0..10).filter_map(|_| table.admit(address("10.0.0.1")).inspect(begin)).collect();
        assert_eq!(busy.len(), 4, "half of so few connections is reserved");
        let health_check = table.admit(address("127.0.0.1"));
        assert!(health_check.is_some());
        drop((busy, health_check));
        assert!(table.open().by_id.is_empty() && table.open().per_address.is_empty());
    }

    #[test]
    fn ipv6_clients_are_told_apart_by_their_network() {
        assert_eq!(client_of(address("2001:db8::1")), client_of(address("2001:db8::ffff:1")));
        assert_ne!(client_of(address("2001:db8::1")), client_of(address("2001:db8:0:1::1")));
        assert_eq!(client_of(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[test]
    fn an_http2_client_may_connect_long_before_its_first_request() {
        let state = table(1, 1).admit(address("127.0.0.1")).unwrap().state();
        let (zero, hour) = (Duration::ZERO, Duration::from_secs(3600));
        state.bytes_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!((state.expired(zero, hour), state.expired(hour, zero)), (None, Some("idle")));
    }

    #[test]
    fn expires_between_requests_only() {
        let permit = table(1, 1).admit(address("127.0.0.1")).unwrap();
        let (state, zero, hour) = (permit.state(), Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(state.expired(zero, hour), Some("header_timeout"), "nothing has been sent");
        state.request_began(false);
        assert_eq!(state.expired(zero, zero), None);
        state.request_ended();
        assert_eq!((state.expired(zero, hour), state.expired(hour, zero)), (None, Some("idle")));
        state.bytes_read(b"GET /");
        assert_eq!(state.expired(zero, hour), Some("header_timeout"), "a head that is not complete");
        state.request_began(true);
        state.request_ended();
        state.bytes_read(b"frame");
        assert_eq!(state.expired(zero, hour), None, "HTTP/2 sends other frames between requests");
    }
}
