//! What detection found, on its way to the response.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use wardroom_correlate::Decision;
use wardroom_domain::{Anomaly, TenantId};

use crate::tenants::News;

/// How long unusual points wait for more of them: each time they are told, threads wake, the store syncs, and whoever keeps an
/// eye on it reads it again.
const MOMENT: Duration = Duration::from_secs(1);
/// So many wait for nothing.
const MANY: usize = 512;

/// Tells unusual points together, decisions at once and after the points that came before them.
#[derive(Debug)]
pub struct Findings {
    news: mpsc::Sender<News>,
    held: BTreeMap<TenantId, Vec<Anomaly>>,
    count: usize,
    since: Instant,
}

/// Nobody listens any more.
#[derive(Debug)]
pub(crate) struct Unheard;

impl Findings {
    /// Told to whoever listens there.
    pub fn new(news: mpsc::Sender<News>) -> Self {
        Self { news, held: BTreeMap::new(), count: 0, since: Instant::now() }
    }

    /// Whether nobody listens any more.
    pub(crate) fn unheard(&self) -> bool {
        self.news.is_closed()
    }

    pub(crate) fn add(&mut self, tenant: &TenantId, anomalies: Vec<Anomaly>) {
        if anomalies.is_empty() {
            return;
        }
        if self.count == 0 {
            self.since = Instant::now();
        }
        self.count += anomalies.len();
        match self.held.get_mut(tenant) {
            Some(held) => held.extend(anomalies),
            None => drop(self.held.insert(tenant.clone(), anomalies)),
        }
    }

    /// Whether what is held has waited long enough.
    pub(crate) fn due(&self) -> bool {
        self.count >= MANY || self.count > 0 && self.since.elapsed() >= MOMENT
    }

    /// Tells what is held.
    pub(crate) fn tell(&mut self) -> Result<(), Unheard> {
        self.count = 0;
        std::mem::take(&mut self.held)
            .into_iter()
            .try_for_each(|(tenant, anomalies)| self.send(News::Anomalies(tenant, anomalies)))
    }

    pub(crate) fn decide(&mut self, tenant: &TenantId, decision: Decision) -> Result<(), Unheard> {
        self.tell()?;
        self.send(News::Decision(tenant.clone(), decision))
    }

    /// Tells what is held, and waits until all that was ever told is stored.
    pub(crate) fn settle(&mut self) -> Result<(), Unheard> {
        self.tell()?;
        let (done, settled) = oneshot::channel();
        self.send(News::Settled(done))?;
        settled.blocking_recv().map_err(|_| Unheard)
    }

    fn send(&self, news: News) -> Result<(), Unheard> {
        self.news.blocking_send(news).map_err(|_| Unheard)
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Labels, Severity, Timestamp};

    use super::*;

    fn anomaly(id: usize) -> Anomaly {
        Anomaly {
            id: id.to_string(),
            series: Labels::of(&[]),
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
    fn points_are_told_together_and_decisions_after_what_came_before() {
        let (news, mut heard) = mpsc::channel(8);
        let (mut findings, main) = (Findings::new(news), TenantId::main());
        findings.add(&main, Vec::new());
        assert!(!findings.due(), "nothing is nothing to tell");
        findings.add(&main, vec![anomaly(0)]);
        assert!(!findings.due(), "more may come");
        findings.add(&main, vec![anomaly(1)]);
        let decision = Decision::Joined { key: "k".into(), service: "a".into() };
        findings.decide(&main, decision).unwrap();
        let Ok(News::Anomalies(_, told)) = heard.try_recv() else { panic!("points first") };
        assert_eq!(told.iter().map(|anomaly| anomaly.id.as_str()).collect::<Vec<_>>(), ["0", "1"]);
        assert!(matches!(heard.try_recv(), Ok(News::Decision(..))));
        findings.add(&main, (0..MANY).map(anomaly).collect());
        assert!(findings.due(), "many do not wait");
        findings.tell().unwrap();
        assert!(!findings.due() && matches!(heard.try_recv(), Ok(News::Anomalies(..))));
        findings.add(&main, vec![anomaly(2)]);
        let answering = std::thread::spawn(move || {
            assert!(matches!(heard.blocking_recv(), Some(News::Anomalies(..))));
            let Some(News::Settled(done)) = heard.blocking_recv() else { panic!("asks when it is stored") };
            done.send(()).unwrap();
        });
        findings.settle().unwrap();
        answering.join().unwrap();
        assert!(findings.unheard() && findings.settle().is_err());
    }
}
