//! Dead letters: records that a consumer gave up on, with the reason, until a person has seen to them.
//!
//! ```text
//! consumer ── tried 5 times ──► bury(letter)            a log of its own beside the bus
//! person   ── replay ─────────► intent ─► append to the bus ─► done
//! ```
//!
//! The log is never changed: what became of a letter is a later record. A replay that was cut off between its
//! intent and its end is finished by the next one, which first looks whether the record already stands in
//! the bus: so it lands once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wardroom_domain::{Envelope, Principal, TenantId, Timestamp};

use crate::{Bus, Config, EmbeddedBus, Error, ReadOnlyBus, Record, decode_payload, encode_payload};

const VERSION: u8 = 1;
/// Letters are few; the log of them may not fill the disk all the same.
const LIMIT: u64 = 1 << 30;
/// What stands in an envelope's place for the protocol.
const PROTOCOL: &str = "wardroom.dead_letter";

/// Why and when a record was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Which consumer gave up.
    pub group: String,
    /// Where the record stands on the bus.
    pub offset: u64,
    /// In words.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
    /// When first.
    pub first_try: Timestamp,
    /// When last.
    pub last_try: Timestamp,
}

/// One dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its number.
    pub id: u64,
    /// Why.
    pub reason: Reason,
    /// The record's header.
    pub envelope: Envelope,
    /// The record's body, as received.
    pub body: Bytes,
    /// Where it stands on the bus since it was replayed.
    pub replayed_as: Option<u64>,
    /// A replay began: from this offset of the bus on its record may stand there.
    pub replaying_from: Option<u64>,
}

/// What stands in a record of this log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    /// A letter; the record's payload follows.
    Buried(Reason),
    /// A replay of letter `id` begins; its record will stand at or after `from`.
    Replaying { id: u64, from: u64 },
    /// It stands at `at`.
    Replayed { id: u64, at: u64 },
}

/// The dead letters of a data folder.
pub struct DeadLetters {
    log: EmbeddedBus,
    /// One replay at a time.
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
    /// The disk's.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let config = Config { limit_bytes: LIMIT, ..Config::default() };
        Ok(Self { log: EmbeddedBus::open(dir, config)?, replaying: tokio::sync::Mutex::default() })
    }

    /// Keeps a record that a consumer gave up on. Durable when it returns.
    ///
    /// # Errors
    /// The disk's.
    pub async fn bury(&self, reason: Reason, record: &Record) -> Result<u64, Error> {
        let payload = encode_payload(&record.envelope, &record.body);
        self.put(&record.envelope.tenant, reason.last_try, &Entry::Buried(reason), &payload).await
    }

    /// All letters of a tenant, oldest first. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn list(&self, tenant: &TenantId) -> Result<Vec<DeadLetter>, Error> {
        collect(&|from, limit| self.log.read(from, limit), tenant)
    }

    /// Where the records that a group gave up on stand on the bus. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn offsets(&self, group: &str) -> Result<BTreeSet<u64>, Error> {
        let (mut offsets, mut next) = (BTreeSet::new(), 0);
        loop {
            let records = self.log.read(next, 256)?;
            let Some(last) = records.last() else { return Ok(offsets) };
            next = last.offset + 1;
            for record in &records {
                if let Some((Entry::Buried(reason), _)) = parse(record).filter(|_| record.envelope.protocol == PROTOCOL)
                    && reason.group == group
                {
                    offsets.insert(reason.offset);
                }
            }
        }
    }

    /// Puts a letter on the bus again, once, however often this is asked: the offset of its record there.
    ///
    /// # Errors
    /// The disk's; `None` if there is no such letter.
    pub async fn replay(&self, bus: &Arc<dyn Bus>, tenant: &TenantId, id: u64) -> Result<Option<u64>, Error> {
        let _alone = self.replaying.lock().await;
        let Some(letter) = self.list(tenant)?.into_iter().find(|letter| letter.id == id) else { return Ok(None) };
        if let Some(at) = letter.replayed_as {
            return Ok(Some(at));
        }
        let now = letter.reason.last_try;
        let landed = letter.replaying_from.map(|from| find(bus, from, &letter)).transpose()?.flatten();
        let at = match landed {
            Some(at) => at,
            None => {
                self.put(tenant, now, &Entry::Replaying { id, from: bus.end() }, &[]).await?;
                bus.append(letter.envelope, letter.body).await?
            }
        };
        self.put(tenant, now, &Entry::Replayed { id, at }, &[]).await?;
        Ok(Some(at))
    }

    async fn put(&self, tenant: &TenantId, at: Timestamp, entry: &Entry, payload: &[u8]) -> Result<u64, Error> {
        let text = serde_json::to_vec(entry).map_err(|error| Error::disk("bury", &error.into()))?;
        let mut body = vec![VERSION];
        body.extend((text.len() as u32).to_le_bytes());
        body.extend(text);
        body.extend(payload);
        let envelope = Envelope {
            tenant: tenant.clone(),
            principal: Principal::wardroom(),
            protocol: PROTOCOL.to_owned(),
            content_type: "application/json".to_owned(),
            content_encoding: String::new(),
            received_at: at,
            refused: Vec::new(),
            events: true,
        };
        self.log.append(envelope, body.into()).await
    }
}

/// The letters of a folder, only read: beside a running server, or without one.
///
/// # Errors
/// The disk's.
pub fn dead_letters(dir: &Path, tenant: &TenantId) -> Result<Vec<DeadLetter>, Error> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let log = ReadOnlyBus::open(dir)?;
    collect(&|from, limit| log.read(from, limit), tenant)
}

/// Whether the letter's record already stands on the bus.
fn find(bus: &Arc<dyn Bus>, from: u64, letter: &DeadLetter) -> Result<Option<u64>, Error> {
    let mut next = from.max(bus.start());
    loop {
        let records = bus.read(next, 256)?;
        let Some(last) = records.last() else { return Ok(None) };
        next = last.offset + 1;
        let same = |record: &&Record| record.envelope == letter.envelope && record.body == letter.body;
        if let Some(found) = records.iter().find(same) {
            return Ok(Some(found.offset));
        }
    }
}

type Read<'a> = dyn Fn(u64, usize) -> Result<Vec<Record>, Error> + 'a;

fn collect(read: &Read<'_>, tenant: &TenantId) -> Result<Vec<DeadLetter>, Error> {
    let mut letters: BTreeMap<u64, DeadLetter> = BTreeMap::new();
    let mut next = 0;
    loop {
        let records = read(next, 256)?;
        let Some(last) = records.last() else { return Ok(letters.into_values().collect()) };
        next = last.offset + 1;
        for record in records.iter().filter(|record| record.envelope.tenant == *tenant) {
            match parse(record) {
                Some((Entry::Buried(reason), payload)) => {
                    let Ok((envelope, body)) = decode_payload(payload) else { continue };
                    let (id, none) = (record.offset, None);
                    let letter = DeadLetter { id, reason, envelope, body, replayed_as: none, replaying_from: none };
                    letters.insert(id, letter);
                }
                Some((Entry::Replaying { id, from }, _)) => {
                    letters.entry(id).and_modify(|letter| letter.replaying_from = Some(from));
                }
                Some((Entry::Replayed { id, at }, _)) => {
                    letters.entry(id).and_modify(|letter| letter.replayed_as = Some(at));
                }
                None => tracing::error!(offset = record.offset, "a dead letter cannot be read"),
            }
        }
    }
}

fn parse(record: &Record) -> Option<(Entry, &[u8])> {
    let (version, rest) = record.body.split_first()?;
    let (size, rest) = rest.split_first_chunk::<4>()?;
    let (text, payload) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    Some((serde_json::from_slice(text).ok().filter(|_| *version == VERSION)?, payload))
}
