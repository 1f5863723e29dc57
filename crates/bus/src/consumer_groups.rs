//! Committed offsets of consumer groups.
//!
//! One small file per group, replaced atomically: version u8, offset u64, CRC-32 of both (little-endian). A name with a
//! dot is a mark: it notes up to where a group has written one of its outputs, and needs no record itself.

use std::fs::File;
use std::io::Write;
use std::path::Path;

const FORMAT_VERSION: u8 = 1;
/// Folder of the offset files, below the bus folder.
const GROUPS_FOLDER: &str = "groups";

/// Commits the offset of a group: records below `offset` are processed. Durable on return.
pub(crate) fn commit(dir: &Path, group: &str, offset: u64) -> std::io::Result<()> {
    let folder = dir.join(GROUPS_FOLDER);
    std::fs::create_dir_all(&folder)?;
    let mut bytes = vec![FORMAT_VERSION];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let (path, temporary) = (folder.join(group), folder.join(format!("{group}.new")));
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    File::open(&folder)?.sync_all()
}

/// Returns the lowest committed offset of all groups, without marks.
pub(crate) fn min_committed(dir: &Path) -> std::io::Result<Option<u64>> {
    let groups = all_committed(dir)?.into_iter().filter(|(name, _)| !name.contains('.'));
    Ok(groups.map(|(_, offset)| offset).min())
}

/// Returns the committed offset of each group, marks included.
pub(crate) fn all_committed(dir: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let folder = dir.join(GROUPS_FOLDER);
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".new")
                && let Some(offset) = committed(dir, &name)?
            {
                found.push((name, offset));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the committed offset of a group; `None` if it never committed or its file is damaged.
pub(crate) fn committed(dir: &Path, group: &str) -> std::io::Result<Option<u64>> {
    let bytes = match std::fs::read(dir.join(GROUPS_FOLDER).join(group)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let body = bytes.split_last_chunk::<4>().filter(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(**crc));
    let offset = body
        .and_then(|(body, _)| body.split_first_chunk::<1>())
        .filter(|(version, _)| version[0] == FORMAT_VERSION)
        .and_then(|(_, offset)| <[u8; 8]>::try_from(offset).ok())
        .map(u64::from_le_bytes);
    if offset.is_none() {
        tracing::error!(group, "committed offset of the consumer group is damaged; reading from the beginning");
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_needs_no_records() {
        let dir = tempfile::tempdir().unwrap();
        for (name, offset) in [("lake", 70), ("lake-events", 50), ("lake-events.silver.logs", 9)] {
            commit(dir.path(), name, offset).unwrap();
        }
        assert_eq!(min_committed(dir.path()).unwrap(), Some(50));
        assert_eq!(committed(dir.path(), "lake-events.silver.logs").unwrap(), Some(9));
        assert_eq!(all_committed(dir.path()).unwrap().len(), 3);
    }
}
