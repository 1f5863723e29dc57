//! Which bodies are decoded on a blocking thread, and in which order.
//!
//! Problem: decoding on the thread that serves all connections delays all of them; the compressed size says little,
//! since 100 KB of gzip can hold 30 MB. And one sender with many large bodies fills a common queue. Model: a body is
//! small if it and what it decompresses to are small. All others wait in two queues: first that of their sender, then a
//! common one, so a sender has at most half of the places in the common queue ahead of the next sender's body.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use wardroom_domain::{Identity, Principal, TenantId};

/// Bodies of at least this size as received are large, in bytes.
const LARGE_BODY_BYTES: usize = 128 << 10;
/// Bodies that decompress to more than this are large, in bytes.
pub(super) const LARGE_INFLATED_BYTES: usize = 1 << 20;

/// Limits concurrent decoding of large bodies to half of the CPUs, so that small requests are not delayed.
static SLOTS: LazyLock<LargeBodySlots> = LazyLock::new(|| {
    let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    LargeBodySlots::new((cpus / 2).max(1))
});

/// Returns whether a body of this size that claims to decompress to `inflated` bytes is large.
pub(super) fn is_large(body_bytes: usize, inflated: usize) -> bool {
    body_bytes >= LARGE_BODY_BYTES || inflated > LARGE_INFLATED_BYTES
}

/// Waits for a slot of this process.
pub(super) async fn acquire_slot(sender: &Identity) -> Result<Slot, AcquireError> {
    SLOTS.acquire(sender).await
}

/// The right to decode one large body, released on drop.
#[derive(Debug)]
pub(super) struct Slot {
    _common: OwnedSemaphorePermit,
    _of_sender: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct LargeBodySlots {
    common: Arc<Semaphore>,
    per_sender: usize,
    /// One entry for each sender ever seen with a large body, so at most one for each token.
    senders: Mutex<BTreeMap<(TenantId, Principal), Arc<Semaphore>>>,
}

impl LargeBodySlots {
    fn new(slots: usize) -> Self {
        let common = Arc::new(Semaphore::new(slots));
        Self { common, per_sender: slots.div_ceil(2), senders: Mutex::default() }
    }

    async fn acquire(&self, sender: &Identity) -> Result<Slot, AcquireError> {
        let of_sender = {
            let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (sender.tenant.clone(), sender.principal.clone());
            Arc::clone(senders.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.per_sender))))
        };
        let of_sender = of_sender.acquire_owned().await?;
        Ok(Slot { _common: Arc::clone(&self.common).acquire_owned().await?, _of_sender: of_sender })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use wardroom_domain::AccessRole;

    use super::*;

    #[test]
    fn one_sender_does_not_fill_the_common_queue() {
        let sender = |name: &str| Identity {
            tenant: TenantId::main(),
            principal: Principal::new(name).unwrap(),
            role: AccessRole::Sender,
        };
        let (slots, mut context) = (LargeBodySlots::new(1), Context::from_waker(Waker::noop()));
        let (many, honest) = (sender("many"), sender("honest"));
        let mut first = pin!(slots.acquire(&many));
        let running = match first.as_mut().poll(&mut context) {
            std::task::Poll::Ready(slot) => slot.unwrap(),
            std::task::Poll::Pending => panic!("the first body waits"),
        };
        let mut others: Vec<_> = (0..8).map(|_| Box::pin(slots.acquire(&many))).collect();
        assert!(others.iter_mut().all(|other| other.as_mut().poll(&mut context).is_pending()));
        let mut next = pin!(slots.acquire(&honest));
        assert!(next.as_mut().poll(&mut context).is_pending());
        drop(running);
        assert!(others.iter_mut().all(|other| other.as_mut().poll(&mut context).is_pending()));
        assert!(next.as_mut().poll(&mut context).is_ready(), "the other sender is next");
    }

    #[test]
    fn size_after_decompression_decides() {
        assert!(!is_large(100_000, 1 << 20));
        assert!(is_large(6, 31 << 20) && is_large(200_000, 200_000));
    }
}
