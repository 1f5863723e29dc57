//! Fixtures of tests.

use wardroom_bus::{BoxFuture, Bus, Record};
use wardroom_domain::Envelope;

/// A bus that stores only the committed offset.
#[derive(Default)]
pub(crate) struct CommitOnlyBus(std::sync::Mutex<Option<u64>>);

impl Bus for CommitOnlyBus {
    fn append(&self, _: Envelope, _: bytes::Bytes) -> BoxFuture<'_, Result<u64, wardroom_bus::Error>> {
        Box::pin(async { Ok(0) })
    }

    fn read(&self, _: u64, _: usize) -> Result<Vec<Record>, wardroom_bus::Error> {
        Ok(Vec::new())
    }

    fn read_skipping_bodies(
        &self,
        from: u64,
        limit: usize,
        _: &dyn Fn(&Envelope) -> bool,
    ) -> Result<Vec<Record>, wardroom_bus::Error> {
        self.read(from, limit)
    }

    fn start_offset(&self) -> u64 {
        0
    }

    fn end_offset(&self) -> u64 {
        u64::MAX
    }

    fn commit(&self, _: &str, offset: u64) -> Result<(), wardroom_bus::Error> {
        *self.0.lock().unwrap() = Some(offset);
        Ok(())
    }

    fn committed(&self, _: &str) -> Result<Option<u64>, wardroom_bus::Error> {
        Ok(*self.0.lock().unwrap())
    }

    fn append_error(&self) -> Option<String> {
        None
    }

    fn lost_records(&self) -> u64 {
        0
    }

    fn durability(&self) -> &'static str {
        "none"
    }

    fn trim(&self, _: u64, _: &wardroom_bus::TrimPolicy<'_>) -> Result<u64, wardroom_bus::Error> {
        Ok(0)
    }

    fn find(&self, _: u64) -> Result<Option<Record>, wardroom_bus::Error> {
        Ok(None)
    }
}
