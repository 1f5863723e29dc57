//! Consumer groups: how far each reader of the log has come, and will not need to read again.
//!
//! One small file per group, replaced whole: version u8, offset u64, CRC-32 of both (little-endian).

use std::fs::File;
use std::io::Write;
use std::path::Path;

const VERSION: u8 = 1;

/// Notes that everything below `offset` is done with.
pub(crate) fn commit(dir: &Path, group: &str, offset: u64) -> std::io::Result<()> {
    let folder = dir.join("groups");
    std::fs::create_dir_all(&folder)?;
    let mut bytes = vec![VERSION];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let (path, fresh) = (folder.join(group), folder.join(format!("{group}.new")));
    let mut file = File::create(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    File::open(&folder)?.sync_all()
}

/// The least of what all groups have done with.
pub(crate) fn least(dir: &Path) -> std::io::Result<Option<u64>> {
    let folder = dir.join("groups");
    let mut least = None;
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".new") {
                least = committed(dir, &name)?.into_iter().chain(least).min();
            }
        }
    }
    Ok(least)
}

/// How far a group has come; `None` for one that never committed, or whose file is damaged.
pub(crate) fn committed(dir: &Path, group: &str) -> std::io::Result<Option<u64>> {
    let bytes = match std::fs::read(dir.join("groups").join(group)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let whole = bytes.split_last_chunk::<4>().filter(|(head, crc)| crc32fast::hash(head) == u32::from_le_bytes(**crc));
    let offset = whole.and_then(|(head, _)| head.split_first_chunk::<1>()).filter(|(version, _)| version[0] == VERSION);
    let offset = offset.and_then(|(_, offset)| <[u8; 8]>::try_from(offset).ok()).map(u64::from_le_bytes);
    if offset.is_none() {
        tracing::error!(group, "the group's offset is damaged; it reads from the beginning");
    }
    Ok(offset)
}
