//! Dead letters: records that a consumer failed to process, kept with the reason until an operator replays them.
//!
//! ```text
//! consumer ── all attempts failed ──► add(record)                   a separate log beside the bus
//! operator ── replay ───────────────► intent ─► append to the bus ─► done
//! ```
//!
//! The log is append-only: a later record updates the state of a dead letter. A replay that was interrupted between
//! intent and end is completed by the next one, which first checks whether the record is already on the bus, so that it
//! is appended once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wardroom_domain::{Envelope, Principal, TenantId, Timestamp};

use crate::bus::Bus;
use crate::config::Config;
use crate::embedded::{EmbeddedBus, ReadOnlyBus};
use crate::error::Error;
use crate::record::{Record, decode_payload, encode_payload};

const FORMAT_VERSION: u8 = 1;
/// Maximum size of the dead letter log, in bytes.
const MAX_LOG_BYTES: u64 = 1 << 30;
/// Records read at once.
const READ_RECORDS: usize = 256;
/// Protocol name in the envelopes of this log.
const DEAD_LETTER_PROTOCOL: &str = "wardroom.dead_letter";

/// Why and when a record was dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterReason {
    /// The consumer group that failed.
    pub group: String,
    /// Offset of the record on the bus.
    pub offset: u64,
    /// The last error.
    pub reason: String,
    /// Number of attempts.
    pub tries: u32,
    /// Time of the first attempt.
    pub first_try: Timestamp,
    /// Time of the last attempt.
    pub last_try: Timestamp,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Id: offset in the dead letter log.
    pub id: u64,
    /// Why it was dead-lettered.
    pub reason: DeadLetterReason,
    /// Header of the record.
    pub envelope: Envelope,
    /// Body of the record, as received.
    pub body: Bytes,
    /// Bus offset of the replayed record, once replayed.
    pub replayed_as: Option<u64>,
    /// Bus offset at or after which the record may be, once a replay has begun.
    pub replaying_from: Option<u64>,
}

/// The content of a record of the dead letter log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    /// A dead letter; the record's payload follows.
    #[serde(rename = "buried")]
    DeadLettered(DeadLetterReason),
    /// A replay of dead letter `id` begins; its record will be at or after bus offset `from`.
    Replaying { id: u64, from: u64 },
    /// The record is at bus offset `offset`.
    Replayed {
        id: u64,
        #[serde(rename = "at")]
        offset: u64,
    },
}

/// The dead letter log, open for writing.
pub struct DeadLetters {
    log: EmbeddedBus,
    /// Allows one replay at a time.
    replaying: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Opens or creates the log in `dir`.
    ///
    /// # Errors
    /// Returns an error if the log cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let config = Config { limit_bytes: MAX_LOG_BYTES, ..Config::default() };
        Ok(Self { log: EmbeddedBus::open(dir, config)?, replaying: tokio::sync::Mutex::default() })
    }

    /// Adds a record that a consumer failed to process and returns the id of the dead letter. Durable on return.
    ///
    /// # Errors
    /// Returns an error if the log cannot be written.
    pub async fn add(&self, reason: DeadLetterReason, record: &Record) -> Result<u64, Error> {
        let payload = encode_payload(&record.envelope, &record.body);
        self.append(&record.envelope.tenant, reason.last_try, &Entry::DeadLettered(reason), &payload).await
    }

    /// Returns all dead letters of a tenant, oldest first. Blocks on disk I/O.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn list(&self, tenant: &TenantId) -> Result<Vec<DeadLetter>, Error> {
        collect(&|from, limit| self.log.read(from, limit), tenant)
    }

    /// Returns the bus offsets of the records that a consumer group dead-lettered. Blocks on disk I/O.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn offsets(&self, group: &str) -> Result<BTreeSet<u64>, Error> {
        let (mut offsets, mut next) = (BTreeSet::new(), 0);
        loop {
            let records = self.log.read(next, READ_RECORDS)?;
            let Some(last) = records.last() else { return Ok(offsets) };
            next = last.offset + 1;
            for record in records.iter().filter(|record| record.envelope.protocol == DEAD_LETTER_PROTOCOL) {
                if let Some((Entry::DeadLettered(reason), _)) = decode_entry(record)
                    && reason.group == group
                {
                    offsets.insert(reason.offset);
                }
            }
        }
    }

    /// Returns the offset after the highest bus offset that the log mentions; 0 if it mentions none. Blocks on disk
    /// I/O.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn mentioned_to(&self) -> Result<u64, Error> {
        let (mut mentioned_to, mut next) = (0, 0);
        loop {
            let records = self.log.read(next, READ_RECORDS)?;
            let Some(last) = records.last() else { return Ok(mentioned_to) };
            next = last.offset + 1;
            for record in &records {
                let end = match decode_entry(record) {
                    Some((Entry::DeadLettered(reason), _)) => reason.offset + 1,
                    Some((Entry::Replaying { from, .. }, _)) => from,
                    Some((Entry::Replayed { offset, .. }, _)) => offset + 1,
                    None => 0,
                };
                mentioned_to = mentioned_to.max(end);
            }
        }
    }

    /// Appends the record of a dead letter to the bus and returns its offset there, or `None` if there is no such dead
    /// letter. Idempotent.
    ///
    /// # Errors
    /// Returns an error if the log or the bus cannot be read or written.
    pub async fn replay(&self, bus: &Arc<dyn Bus>, tenant: &TenantId, id: u64) -> Result<Option<u64>, Error> {
        let _exclusive = self.replaying.lock().await;
        let Some(dead_letter) = self.list(tenant)?.into_iter().find(|dead_letter| dead_letter.id == id) else {
            return Ok(None);
        };
        if let Some(offset) = dead_letter.replayed_as {
            return Ok(Some(offset));
        }
        let now = dead_letter.reason.last_try;
        let appended =
            dead_letter.replaying_from.map(|from| find_on_bus(bus, from, &dead_letter)).transpose()?.flatten();
        let offset = match appended {
            Some(offset) => offset,
            None => {
                self.append(tenant, now, &Entry::Replaying { id, from: bus.end_offset() }, &[]).await?;
                bus.append(dead_letter.envelope, dead_letter.body).await?
            }
        };
        self.append(tenant, now, &Entry::Replayed { id, offset }, &[]).await?;
        Ok(Some(offset))
    }

    /// Appends an entry: version u8, length of the JSON u32 (little-endian), JSON, payload.
    async fn append(&self, tenant: &TenantId, at: Timestamp, entry: &Entry, payload: &[u8]) -> Result<u64, Error> {
        let json = serde_json::to_vec(entry).map_err(|error| Error::disk("append dead letter", &error.into()))?;
        let mut body = vec![FORMAT_VERSION];
        body.extend((json.len() as u32).to_le_bytes());
        body.extend(json);
        body.extend(payload);
        let envelope = Envelope {
            tenant: tenant.clone(),
            principal: Principal::wardroom(),
            protocol: DEAD_LETTER_PROTOCOL.to_owned(),
            content_type: "application/json".to_owned(),
            content_encoding: String::new(),
            received_at: at,
            refused: Vec::new(),
            has_events: true,
        };
        self.log.append(envelope, body.into()).await
    }
}

/// Returns the dead letters of a folder, opened read-only, whether or not a server is running on it.
///
/// # Errors
/// Returns an error if the log cannot be read.
pub fn read_dead_letters(dir: &Path, tenant: &TenantId) -> Result<Vec<DeadLetter>, Error> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let log = ReadOnlyBus::open(dir)?;
    collect(&|from, limit| log.read(from, limit), tenant)
}

/// Returns the bus offset of a dead letter's record if it is on the bus at or after `from`.
fn find_on_bus(bus: &Arc<dyn Bus>, from: u64, dead_letter: &DeadLetter) -> Result<Option<u64>, Error> {
    let mut next = from.max(bus.start_offset());
    loop {
        let records = bus.read(next, READ_RECORDS)?;
        let Some(last) = records.last() else { return Ok(None) };
        next = last.offset + 1;
        let same = |record: &&Record| record.envelope == dead_letter.envelope && record.body == dead_letter.body;
        if let Some(found) = records.iter().find(same) {
            return Ok(Some(found.offset));
        }
    }
}

type Read<'a> = dyn Fn(u64, usize) -> Result<Vec<Record>, Error> + 'a;

/// Reads the whole log and returns the current state of a tenant's dead letters.
fn collect(read: &Read<'_>, tenant: &TenantId) -> Result<Vec<DeadLetter>, Error> {
    let mut dead_letters: BTreeMap<u64, DeadLetter> = BTreeMap::new();
    let mut next = 0;
    loop {
        let records = read(next, READ_RECORDS)?;
        let Some(last) = records.last() else { return Ok(dead_letters.into_values().collect()) };
        next = last.offset + 1;
        for record in records.iter().filter(|record| record.envelope.tenant == *tenant) {
            match decode_entry(record) {
                Some((Entry::DeadLettered(reason), payload)) => {
                    let Ok((envelope, body)) = decode_payload(payload) else { continue };
                    let (id, none) = (record.offset, None);
                    let dead_letter =
                        DeadLetter { id, reason, envelope, body, replayed_as: none, replaying_from: none };
                    dead_letters.insert(id, dead_letter);
                }
                Some((Entry::Replaying { id, from }, _)) => {
                    dead_letters.entry(id).and_modify(|dead_letter| dead_letter.replaying_from = Some(from));
                }
                Some((Entry::Replayed { id, offset }, _)) => {
                    dead_letters.entry(id).and_modify(|dead_letter| dead_letter.replayed_as = Some(offset));
                }
                None => tracing::error!(offset = record.offset, "dead letter cannot be decoded; skipping it"),
            }
        }
    }
}

/// Splits a record into its entry and the payload after it.
fn decode_entry(record: &Record) -> Option<(Entry, &[u8])> {
    let (version, rest) = record.body.split_first()?;
    let (size, rest) = rest.split_first_chunk::<4>()?;
    let (json, payload) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    Some((serde_json::from_slice(json).ok().filter(|_| *version == FORMAT_VERSION)?, payload))
}
