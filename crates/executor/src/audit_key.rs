//! The key that signs the audit log: Ed25519, in the executor's folder, which the server's sandbox cannot read.
//!
//! The private key is a PEM file (PKCS#8, mode 0600), the public key beside it another (`SubjectPublicKeyInfo`), so
//! that standard tools verify the signatures, too. Both are written when the executor starts for the first time.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use wardroom_domain::Timestamp;
use wardroom_domain::audit_head::{AuditHead, SignedHead};

use crate::config::private_file::read_private_file;

/// Name of the private key's file in the executor's folder. Backups leave it out.
pub const PRIVATE_KEY_FILE: &str = "audit-private-key.pem";
/// Name of the public key's file in the executor's folder.
const PUBLIC_KEY_FILE: &str = "audit-public-key.pem";
/// Suffix of a file that is not complete yet. Backups leave it out.
const UNFINISHED_SUFFIX: &str = "new";
/// What precedes the 32 bytes of an Ed25519 key in its DER `SubjectPublicKeyInfo` (RFC 8410).
const PUBLIC_KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Bytes of an Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;
/// Maximum size of a public key's file, in bytes.
const MAX_PUBLIC_KEY_FILE_BYTES: u64 = 4096;

/// The private key.
pub(crate) struct AuditKey {
    pair: Ed25519KeyPair,
    /// The public key as in [`SignedHead::public_key`].
    public_key: String,
}

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AuditKey").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

impl AuditKey {
    /// Reads the key of the executor's folder; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(PRIVATE_KEY_FILE);
        if !path.try_exists()? {
            return Ok(None);
        }
        let damaged = |reason: String| Error::new(ErrorKind::InvalidData, format!("{}: {reason}", path.display()));
        let document = decode_pem(&read_private_file(&path).map_err(damaged)?).map_err(damaged)?;
        let pair = Ed25519KeyPair::from_pkcs8(&document);
        let key = Self::new(pair.map_err(|error| damaged(format!("it is not an Ed25519 key in PKCS#8: {error}")))?);
        // Missing if the process was killed between the two files.
        if !read_public_key(&public_key_path(folder)).is_ok_and(|public_key| public_key == key.public_key) {
            key.write_public_key(folder)?;
        }
        Ok(Some(key))
    }

    /// Creates a key, and replaces the one of the folder.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let random = || Error::other("the system's random number generator failed");
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| random())?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|error| Error::other(error.to_string()))?;
        let key = Self::new(pair);
        let pem = encode_pem("PRIVATE KEY", &BASE64.encode(document.as_ref()));
        write_file(&folder.join(PRIVATE_KEY_FILE), 0o600, &pem)?;
        key.write_public_key(folder)?;
        Ok(key)
    }

    fn write_public_key(&self, folder: &Path) -> Result<()> {
        write_file(&public_key_path(folder), 0o644, &encode_pem("PUBLIC KEY", &self.public_key))
    }

    fn new(pair: Ed25519KeyPair) -> Self {
        let public_key = [&PUBLIC_KEY_PREFIX, pair.public_key().as_ref()].concat();
        Self { pair, public_key: BASE64.encode(public_key) }
    }

    /// Returns the public key as in [`SignedHead::public_key`].
    pub(crate) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Signs a head.
    pub(crate) fn sign(&self, head: AuditHead) -> std::result::Result<SignedHead, String> {
        let signature = BASE64.encode(self.pair.sign(head.message()?.as_bytes()));
        Ok(SignedHead { head, public_key: self.public_key.clone(), signature })
    }
}

/// Returns the path of the public key in the executor's folder.
pub(crate) fn public_key_path(folder: &Path) -> PathBuf {
    folder.join(PUBLIC_KEY_FILE)
}

/// Returns whether the signature of a head is valid for the public key in it.
pub fn is_signature_valid(signed: &SignedHead) -> bool {
    let (Ok(message), Ok(signature)) = (signed.head.message(), BASE64.decode(&signed.signature)) else { return false };
    let key = BASE64.decode(&signed.public_key).ok();
    let key = key.as_ref().and_then(|key| key.strip_prefix(&PUBLIC_KEY_PREFIX));
    key.is_some_and(|key| UnparsedPublicKey::new(&ED25519, key).verify(message.as_bytes(), &signature).is_ok())
}

/// Reads a public key: a PEM file, or only the Base64 text in it. Returns the text as in [`SignedHead::public_key`].
///
/// # Errors
/// Returns an error if the file cannot be read or has no Ed25519 public key.
pub fn read_public_key(path: &Path) -> Result<String> {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(File::open(path)?, MAX_PUBLIC_KEY_FILE_BYTES), &mut text)?;
    let invalid = |reason: String| Error::new(ErrorKind::InvalidData, reason);
    let key = decode_pem(&text).map_err(invalid)?;
    if !key.starts_with(&PUBLIC_KEY_PREFIX) || key.len() != PUBLIC_KEY_PREFIX.len() + PUBLIC_KEY_BYTES {
        return Err(invalid("it is not an Ed25519 public key in PEM; give the executor's audit-public-key.pem".into()));
    }
    Ok(BASE64.encode(key))
}

/// Reads the public key of an executor's folder with the time of its file; `None` if there is none.
pub(crate) fn folder_public_key(folder: &Path) -> Result<Option<(String, Timestamp)>> {
    let path = public_key_path(folder);
    let modified = match std::fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?.modified()?,
    };
    let since_epoch = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let with_path = |error: Error| Error::new(error.kind(), format!("{}: {error}", path.display()));
    Ok(Some((read_public_key(&path).map_err(with_path)?, Timestamp::default().plus(since_epoch))))
}

/// Returns the bytes of a PEM text; lines such as `-----BEGIN …` and white space are skipped.
fn decode_pem(text: &str) -> std::result::Result<Vec<u8>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    BASE64.decode(lines.collect::<String>()).map_err(|error| format!("it is not a PEM file: {error}"))
}

fn encode_pem(label: &str, base64: &str) -> String {
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

/// Writes a file with a mode, synced, in the place of one that may be there.
fn write_file(path: &Path, mode: u32, text: &str) -> Result<()> {
    let unfinished = path.with_extension(UNFINISHED_SUFFIX);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wardroom_domain::audit_head::ChainPosition;

    use super::*;

    fn head() -> AuditHead {
        let position = ChainPosition { sequence: 7, hash: "ab".into() };
        SignedHead::next(None, position, None, Timestamp::from_millis(1_795_255_200_000)).unwrap()
    }

    #[test]
    fn a_key_is_created_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AuditKey::read(dir.path()).unwrap().is_none());
        let created = AuditKey::create(dir.path()).unwrap();
        let private = std::fs::metadata(dir.path().join(PRIVATE_KEY_FILE)).unwrap();
        assert_eq!(private.permissions().mode() & 0o777, 0o600);
        let signed = AuditKey::read(dir.path()).unwrap().unwrap().sign(head()).unwrap();
        assert_eq!(signed.public_key, created.public_key());
        assert_eq!(read_public_key(&public_key_path(dir.path())).unwrap(), signed.public_key);
        assert!(is_signature_valid(&signed));
        assert_ne!(AuditKey::create(dir.path()).unwrap().public_key(), created.public_key(), "another one");
    }

    #[test]
    fn only_the_signed_head_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let key = AuditKey::create(dir.path()).unwrap();
        let signed = key.sign(head()).unwrap();
        let other = AuditKey::create(dir.path()).unwrap().sign(head()).unwrap();
        let mut later = signed.clone();
        later.head.at = later.head.at.plus(std::time::Duration::from_nanos(1));
        let mut longer = signed.clone();
        longer.head.position.sequence += 1;
        for wrong in [
            later,
            longer,
            SignedHead { public_key: other.public_key.clone(), ..signed.clone() },
            SignedHead { signature: other.signature.clone(), ..signed.clone() },
            SignedHead { signature: String::new(), ..signed.clone() },
            SignedHead { public_key: "!".into(), ..signed.clone() },
        ] {
            assert!(!is_signature_valid(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn keys_that_others_can_read_or_that_are_damaged_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        AuditKey::create(dir.path()).unwrap();
        let path = dir.path().join(PRIVATE_KEY_FILE);
        let set_mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set_mode(0o640);
        assert!(AuditKey::read(dir.path()).unwrap_err().to_string().contains("chmod 600"));
        set_mode(0o600);
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nMC4=\n").unwrap();
        assert!(AuditKey::read(dir.path()).unwrap_err().to_string().contains("not an Ed25519 key"));
        std::fs::write(&path, "no key").unwrap();
        assert!(read_public_key(&path).unwrap_err().to_string().contains("not a PEM file"));
    }
}
