//! Output of detection: sends anomalies in batches and decisions at once to the response.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use wardroom_correlate::Decision;
use wardroom_domain::{Anomaly, TenantId};

/// Maximum time that anomalies are buffered. Each send wakes threads and syncs the store.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Buffered anomalies that cause a flush at once.
const MAX_BUFFERED_ANOMALIES: usize = 512;

/// Event from detection to the response.
#[derive(Debug)]
pub enum DetectorEvent {
    /// Anomalies to store.
    Anomalies(TenantId, Vec<Anomaly>),
    /// An incident opened or grew.
    Decision(TenantId, Box<Decision>),
    /// Acknowledged once all events before it are stored.
    Barrier(oneshot::Sender<()>),
}

/// Buffers anomalies and sends events. A decision is sent after the anomalies before it.
#[derive(Debug)]
pub struct DetectorOutput {
    events: mpsc::Sender<DetectorEvent>,
    buffered: BTreeMap<TenantId, Vec<Anomaly>>,
    count: usize,
    /// Time of the first buffered anomaly.
    since: Instant,
}

/// The receiver of the events was dropped: the response has stopped.
#[derive(Debug)]
pub(crate) struct ReceiverClosed;

impl DetectorOutput {
    /// Creates an output that sends to this channel.
    pub fn new(events: mpsc::Sender<DetectorEvent>) -> Self {
        Self { events, buffered: BTreeMap::new(), count: 0, since: Instant::now() }
    }

    /// Returns whether the receiver was dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Buffers anomalies.
    pub(crate) fn add_anomalies(&mut self, tenant: &TenantId, anomalies: Vec<Anomaly>) {
        if anomalies.is_empty() {
            return;
        }
        if self.count == 0 {
            self.since = Instant::now();
        }
        self.count += anomalies.len();
        match self.buffered.get_mut(tenant) {
            Some(buffered) => buffered.extend(anomalies),
            None => drop(self.buffered.insert(tenant.clone(), anomalies)),
        }
    }

    /// Returns whether the buffer has to be flushed.
    pub(crate) fn flush_due(&self) -> bool {
        self.count >= MAX_BUFFERED_ANOMALIES || self.count > 0 && self.since.elapsed() >= FLUSH_INTERVAL
    }

    /// Sends the buffered anomalies.
    pub(crate) fn flush(&mut self) -> Result<(), ReceiverClosed> {
        self.count = 0;
        std::mem::take(&mut self.buffered)
            .into_iter()
            .try_for_each(|(tenant, anomalies)| self.send(DetectorEvent::Anomalies(tenant, anomalies)))
    }

    /// Sends the buffered anomalies, then a decision.
    pub(crate) fn send_decision(&mut self, tenant: &TenantId, decision: Decision) -> Result<(), ReceiverClosed> {
        self.flush()?;
        self.send(DetectorEvent::Decision(tenant.clone(), Box::new(decision)))
    }

    /// Flushes and blocks until all events sent so far are stored.
    pub(crate) fn flush_and_wait(&mut self) -> Result<(), ReceiverClosed> {
        self.flush()?;
        let (done, stored) = oneshot::channel();
        self.send(DetectorEvent::Barrier(done))?;
        stored.blocking_recv().map_err(|_| ReceiverClosed)
    }

    fn send(&self, event: DetectorEvent) -> Result<(), ReceiverClosed> {
        self.events.blocking_send(event).map_err(|_| ReceiverClosed)
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Entity, Labels, Severity, Timestamp};

    use super::*;

    fn anomaly(id: usize) -> Anomaly {
        Anomaly {
            id: id.to_string(),
            series: Labels::of(&[]),
            entity: Entity::service("a"),
            service: "a".into(),
            detector: "zscore".into(),
            score: 1.0,
            z: 9.0,
            severity: Severity::High,
            value: 1.0,
            expected: 0.0,
            at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn batches_anomalies_and_sends_decisions_after_earlier_anomalies() {
        let (events, mut received) = mpsc::channel(8);
        let (mut output, main) = (DetectorOutput::new(events), TenantId::main());
        output.add_anomalies(&main, Vec::new());
        assert!(!output.flush_due(), "an empty buffer is not flushed");
        output.add_anomalies(&main, vec![anomaly(0)]);
        assert!(!output.flush_due(), "anomalies are batched");
        output.add_anomalies(&main, vec![anomaly(1)]);
        let decision = Decision::Joined { key: "k".into(), entity: Entity::service("a") };
        output.send_decision(&main, decision).unwrap();
        let Ok(DetectorEvent::Anomalies(_, sent)) = received.try_recv() else { panic!("expected anomalies first") };
        assert_eq!(sent.iter().map(|anomaly| anomaly.id.as_str()).collect::<Vec<_>>(), ["0", "1"]);
        assert!(matches!(received.try_recv(), Ok(DetectorEvent::Decision(..))));
        output.add_anomalies(&main, (0..MAX_BUFFERED_ANOMALIES).map(anomaly).collect());
        assert!(output.flush_due(), "a full buffer is flushed at once");
        output.flush().unwrap();
        assert!(!output.flush_due() && matches!(received.try_recv(), Ok(DetectorEvent::Anomalies(..))));
        output.add_anomalies(&main, vec![anomaly(2)]);
        let receiver_thread = std::thread::spawn(move || {
            assert!(matches!(received.blocking_recv(), Some(DetectorEvent::Anomalies(..))));
            let Some(DetectorEvent::Barrier(done)) = received.blocking_recv() else { panic!("expected a barrier") };
            done.send(()).unwrap();
        });
        output.flush_and_wait().unwrap();
        receiver_thread.join().unwrap();
        assert!(output.is_closed() && output.flush_and_wait().is_err());
    }
}
