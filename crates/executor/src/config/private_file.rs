//! Reads a file with credentials, after checking that no other user can read or replace it.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Maximum size of the file, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Reads a file that only the user of this process can read or write. All checks are made on the opened file: the path
/// may name another one a moment later.
pub(crate) fn read_private_file(path: &Path) -> Result<String, String> {
    // O_NONBLOCK: opening a FIFO would wait for a writer.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|error| {
        let is_link = error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32);
        if is_link { "it is a symbolic link; give the path of the file itself".to_owned() } else { error.to_string() }
    })?;
    check_private(&file)?;
    check_folders(path)?;
    let mut text = String::new();
    let size = file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if size as u64 > MAX_CONFIG_BYTES {
        return Err(format!("it has more than {MAX_CONFIG_BYTES} bytes"));
    }
    Ok(text)
}

fn check_private(file: &File) -> Result<(), String> {
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let user = nix::unistd::geteuid().as_raw();
    if found.uid() != user {
        let owner = found.uid();
        return Err(format!("it belongs to user {owner}, who could change the approvers; chown it to user {user}"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!("mode is {:o}; it holds credentials: chmod 600 it", found.mode() & 0o777));
    }
    // Landlock decides by folder: another name in a folder that the server may read would open the file to it.
    if found.nlink() > 1 {
        return Err(format!("it has {} names (hard links); remove the others", found.nlink()));
    }
    Ok(())
}

/// Checks that no other user can replace the file, by sshd's rule: each folder on its path, with symbolic links or
/// without, belongs to root or to this user, and only its owner may write to it, unless only owners may remove what is
/// in it (the sticky bit, as of `/tmp`).
fn check_folders(path: &Path) -> Result<(), String> {
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    let resolved = path.canonicalize().map_err(|error| error.to_string())?;
    let user = nix::unistd::geteuid().as_raw();
    for folder in absolute.ancestors().skip(1).chain(resolved.ancestors().skip(1)) {
        let found = std::fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (folder, mode, owner) = (folder.display(), found.mode(), found.uid());
        if owner != 0 && owner != user {
            let reason = format!("user {owner} can replace it, since {folder} belongs to them");
            return Err(format!("{reason}; chown the folder to user {user} or to root"));
        }
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            let who = if mode & 0o002 != 0 { "all users" } else { "a group" };
            let mode = mode & 0o777;
            return Err(format!("{who} can replace it, since mode of {folder} is {mode:o}: chmod go-w it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::super::ExecutorConfig;
    use super::*;

    fn write(path: &Path, mode: u32) {
        std::fs::write(path, "approvers: []\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_a_private_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, fifo) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("fifo"));
        write(&file, 0o600);
        assert!(ExecutorConfig::load(&file).is_ok());
        let refused = |path: &Path, expected: &str| {
            let error = ExecutorConfig::load(path).unwrap_err();
            assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{error}");
        };
        symlink(&file, &link).unwrap();
        refused(&link, "symbolic link");
        refused(&dir.path().join("missing"), "No such file");
        refused(dir.path(), "not a regular file");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        refused(&fifo, "not a regular file");
        for mode in [0o640, 0o604, 0o660, 0o602, 0o610] {
            write(&file, mode);
            refused(&file, "chmod 600");
        }
        write(&file, 0o400);
        assert!(ExecutorConfig::load(&file).is_ok());
        let other_name = dir.path().join("other");
        std::fs::hard_link(&file, &other_name).unwrap();
        refused(&file, "2 names");
        std::fs::remove_file(&other_name).unwrap();
        for (mode, accepted) in [
            (0o777, false),
            (0o703, false),
            (0o770, false),
            (0o775, false),
            (0o1777, true),
            (0o1770, true),
            (0o755, true),
        ] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(ExecutorConfig::load(&file).is_ok(), accepted, "{mode:o}");
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "x".repeat(1 + MAX_CONFIG_BYTES as usize)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        refused(&file, "more than");
    }

    #[test]
    fn a_file_or_folder_of_another_user_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return; // Only root can give a file away.
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        write(&file, 0o600);
        chown(&file, Some(65_534), None).unwrap();
        let error = ExecutorConfig::load(&file).unwrap_err();
        assert!(error.contains("belongs to user 65534"), "{error}");
        chown(&file, Some(0), None).unwrap();
        let folder = dir.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let inner = folder.join("inner");
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("file");
        write(&file, 0o600);
        for (owner, accepted) in [(65_534, false), (0, true)] {
            chown(&folder, Some(owner), None).unwrap();
            let loaded = ExecutorConfig::load(&file).map(drop);
            assert_eq!(loaded.is_ok(), accepted, "{loaded:?}");
            assert!(loaded.err().is_none_or(|error| error.contains("user 65534 can replace it")));
        }
    }
}
