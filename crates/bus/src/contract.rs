//! Contract tests for every [`Bus`] implementation: one async function per guarantee.

use std::sync::Arc;

use bytes::Bytes;
use wardroom_domain::{Envelope, Principal, TenantId, Timestamp};

use crate::bus::Bus;

/// Returns an envelope for tests.
pub fn envelope(received_ms: i64) -> Envelope {
    Envelope {
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        protocol: "test".into(),
        content_type: "text/plain".into(),
        content_encoding: String::new(),
        received_at: Timestamp::from_millis(received_ms),
        refused: Vec::new(),
        has_events: false,
    }
}

/// Offsets are dense and ascending, and records read back byte for byte.
pub async fn appended_records_read_back_in_order(bus: Arc<dyn Bus>) {
    let first = bus.end_offset();
    for index in 0..20_u8 {
        let offset = bus.append(envelope(i64::from(index)), Bytes::from(vec![index; 300])).await.expect("append");
        assert_eq!(offset, first + u64::from(index));
    }
    let records = bus.read(first, 100).expect("read");
    assert_eq!(records.len(), 20);
    for (index, record) in (0_u8..).zip(&records) {
        assert_eq!(record.offset, first + u64::from(index));
        assert_eq!(record.body, vec![index; 300]);
        assert_eq!(record.envelope, envelope(i64::from(index)));
    }
    assert_eq!(bus.end_offset(), first + 20);
}

/// Concurrent appends are each stored once, each at its own offset.
pub async fn concurrent_appends_get_distinct_offsets(bus: Arc<dyn Bus>) {
    let first = bus.end_offset();
    let mut tasks = Vec::new();
    for index in 0..200_u32 {
        let bus = Arc::clone(&bus);
        tasks.push(tokio::spawn(async move {
            bus.append(envelope(0), Bytes::from(index.to_le_bytes().to_vec())).await.expect("append")
        }));
    }
    let mut offsets = Vec::new();
    for task in tasks {
        offsets.push(task.await.expect("task"));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (first..first + 200).collect::<Vec<_>>());
    let mut bodies: Vec<_> = bus.read(first, 1000).expect("read").into_iter().map(|record| record.body).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 200);
}

/// Each consumer group has its own committed offset.
pub async fn groups_keep_their_committed_offsets(bus: Arc<dyn Bus>) {
    assert_eq!(bus.committed("a").expect("read"), None);
    bus.commit("a", 7).expect("commit");
    bus.commit("b", 3).expect("commit");
    bus.commit("a", 9).expect("commit");
    assert_eq!((bus.committed("a").expect("read"), bus.committed("b").expect("read")), (Some(9), Some(3)));
}

/// Reading in small steps returns the same records as reading at once.
pub async fn reading_in_steps_returns_every_record(bus: Arc<dyn Bus>) {
    let first = bus.end_offset();
    for index in 0..37_u8 {
        bus.append(envelope(0), Bytes::from(vec![index])).await.expect("append");
    }
    let mut next = first;
    let mut seen = Vec::new();
    loop {
        let step = bus.read(next, 5).expect("read");
        let Some(last) = step.last() else { break };
        next = last.offset + 1;
        seen.extend(step.into_iter().map(|record| record.body[0]));
    }
    assert_eq!(seen, (0..37).collect::<Vec<_>>());
    assert!(bus.read(bus.end_offset(), 5).expect("read").is_empty());
}
