//! Samples are committed once, also if offsets below the committed one are missing on the bus.

use std::os::unix::fs::FileExt;

use wardroom_domain::Sample;
use wardroom_domain::query::SeriesQuery;
use wardroom_lake::Lake;
use wardroom_testing::remote_write;

use super::*;
use crate::lake::lake_writer::load_lake_series_ids;

/// Records that are committed before the damage.
const COMMITTED: u64 = 6;
/// Records that are appended after it.
const LATER_REQUESTS: u64 = 6;

impl Fixture {
    /// Appends requests with one sample each, whose values are `values`.
    fn append_samples(&self, values: std::ops::Range<u64>) {
        let newest_ms = clock::now().millis();
        for value in values {
            let series = remote_write::series(&[("__name__", "a")], value as f64, newest_ms - 60_000 + value as i64);
            let mut header = envelope(clock::now());
            header.protocol = "prometheus_remote_write".into();
            (header.content_type, header.content_encoding) = ("application/x-protobuf".into(), "snappy".into());
            self.append(header, remote_write::body(vec![series]).into());
        }
    }

    /// Opens the bus again, with an empty state and no checkpoint.
    fn reopen(&mut self) {
        drop(std::fs::remove_dir_all(self.dir.path().join("checkpoint")));
        let bus = EmbeddedBus::open(&self.dir.path().join("bus"), wardroom_bus::Config::default()).unwrap();
        self.bus = Arc::new(bus);
        self.tenants = Arc::new(Tenants::new(self.config.clone()));
        self.next = Arc::default();
    }

    /// Runs detection until the tables are committed to `offset`, and returns the values in them.
    fn run_until_committed(&self, offset: u64) -> Vec<u64> {
        let lake = Arc::new(self.runtime.block_on(Lake::open(&self.config.lake, self.dir.path())).unwrap());
        self.runtime.block_on(load_lake_series_ids(&lake, &self.tenants, None)).unwrap();
        let tables = LakeTables {
            committed_offset: self.runtime.block_on(lake.committed_offset()).unwrap(),
            lake: Arc::clone(&lake),
            samples_progress: Arc::default(),
            events_progress: Arc::default(),
        };
        let (mut events, detection_thread) = self.start(Some(tables.clone()));
        let deadline = Instant::now() + Duration::from_secs(40);
        while tables.samples_progress.committed_offset() < offset {
            assert!(Instant::now() < deadline, "committed to {}", tables.samples_progress.committed_offset());
            std::thread::sleep(Duration::from_millis(20));
        }
        events.close();
        detection_thread.join().unwrap();
        let (start, end) = (Timestamp::from_millis(0), clock::now());
        let query = SeriesQuery { selectors: Vec::new(), start, end, step_ms: None };
        let read = async { lake.read_samples(&TenantId::main(), &query, (0, u64::MAX >> 1), 1000).await };
        let samples = self.runtime.block_on(read).unwrap().series.into_iter().flat_map(|(_, samples)| samples);
        let mut values: Vec<u64> = samples.map(|sample: Sample| sample.value as u64).collect();
        values.sort_unstable();
        let tables = self.runtime.block_on(lake.verify_snapshot()).unwrap();
        let rows = tables.iter().find(|table| table.table == "silver.samples").unwrap().rows;
        assert_eq!(rows, values.len() as u64, "each sample is stored once");
        values
    }

    /// Commits the first records, lets `damage` change the bus, and appends the later ones before the restart.
    fn loses_no_later_sample(mut self, damage: impl FnOnce(&Self, &[Record])) {
        self.append_samples(0..COMMITTED);
        assert_eq!(self.run_until_committed(COMMITTED), (0..COMMITTED).collect::<Vec<_>>());
        damage(&self, &self.bus.read(0, 100).unwrap());
        self.reopen();
        self.append_samples(COMMITTED..COMMITTED + LATER_REQUESTS);
        let end = self.bus.end_offset();
        assert_eq!(self.run_until_committed(end), (0..COMMITTED + LATER_REQUESTS).collect::<Vec<_>>());
    }
}

fn flush_each_second() -> Fixture {
    let mut config = Config::default();
    config.lake.flush_seconds = 1;
    Fixture::new(config)
}

#[test]
fn damaged_records_below_the_committed_offset() {
    flush_each_second().loses_no_later_sample(|fixture, records| {
        let segment = fixture.dir.path().join("bus/00000000000000000000.seg");
        let file = std::fs::File::options().write(true).open(segment).unwrap();
        for index in [1, 3] {
            file.write_all_at(&[0xee; 4], records[index].location.position + 30).unwrap();
        }
    });
}

/// The bus lost its end, and a new epoch continues where the tables are, or later.
#[test]
fn a_new_epoch_above_lost_records() {
    for epoch in [COMMITTED, COMMITTED + 100] {
        flush_each_second().loses_no_later_sample(|fixture, records| {
            let bus = fixture.dir.path().join("bus");
            let segment = std::fs::File::options().write(true).open(bus.join("00000000000000000000.seg")).unwrap();
            segment.set_len(records[2].location.position).unwrap();
            wardroom_bus::start_new_epoch(&bus, epoch).unwrap();
        });
    }
}
