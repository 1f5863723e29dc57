//! Verification of SSH signatures with `ring`, for every type of key that OpenSSH signs with by default.
//!
//! `ssh-key` decodes keys and signatures (`PROTOCOL.sshsig`, `PROTOCOL.u2f`); the arithmetic is that of `ring`, which
//! Wardroom has anyway, so that no second implementation of the same curves is linked, and RSA keys work, too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use ssh_encoding::Encode as _;
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, SshSig};

/// Beginning of the bytes of a signature.
const MAGIC: &[u8] = b"SSHSIG";
/// Format version of signatures.
const VERSION: u32 = 1;
/// Length of a line of base64 in OpenSSH's signatures.
const LINE_CHARACTERS: usize = 70;
/// Length of the flags and the counter at the end of a security key's signature, in bytes.
const SECURITY_KEY_TRAILER_BYTES: usize = 5;
/// Bit of the flags that says that a person touched the security key.
const USER_PRESENT: u8 = 1;
/// Length of the big-endian length before each part of an ECDSA signature, in bytes.
const LENGTH_BYTES: usize = 4;

/// Says why a key cannot sign approvals.
pub(crate) fn check_supported(key: &KeyData) -> Result<(), String> {
    match key {
        KeyData::Ed25519(_)
        | KeyData::SkEd25519(_)
        | KeyData::SkEcdsaSha2NistP256(_)
        | KeyData::Rsa(_)
        | KeyData::Ecdsa(EcdsaPublicKey::NistP256(_) | EcdsaPublicKey::NistP384(_)) => Ok(()),
        _ => Err(format!(
            "a key of the type {} cannot sign approvals; use Ed25519, ECDSA (P-256 or P-384), RSA, or a security key",
            key.algorithm()
        )),
    }
}

/// Returns whether a text is the one way in which OpenSSH writes a signature, white space aside.
///
/// The decoder accepts others, such as a wrong length of the inner signature, an older version, or a reserved part,
/// none of which is signed. A proof is kept and compared by its text, so that one signature must not have several.
pub(crate) fn is_canonical(signature: &SshSig, text: &str) -> bool {
    let characters = |text: &str| text.split_whitespace().collect::<String>();
    to_text(signature).is_some_and(|written| characters(&written) == characters(text))
}

/// Returns the text of a signature as OpenSSH writes it; `None` for one that has none.
pub(crate) fn to_text(signature: &SshSig) -> Option<String> {
    let body = STANDARD.encode(to_bytes(signature)?);
    let mut text = "-----BEGIN SSH SIGNATURE-----\n".to_owned();
    for line in body.as_bytes().chunks(LINE_CHARACTERS) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END SSH SIGNATURE-----\n");
    Some(text)
}

/// Returns the bytes of a signature (`PROTOCOL.sshsig`). The encoder of `ssh-key` writes those of an ECDSA security key
/// in another way than its decoder reads them.
fn to_bytes(signature: &SshSig) -> Option<Vec<u8>> {
    let (algorithm, bytes) = (signature.algorithm(), signature.signature_bytes());
    let has_trailer = matches!(algorithm, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256);
    let trailer_bytes = if has_trailer { SECURITY_KEY_TRAILER_BYTES } else { 0 };
    let (own, trailer) = bytes.split_at_checked(bytes.len().checked_sub(trailer_bytes)?)?;
    let (mut key, mut inner, mut all) = (Vec::new(), Vec::new(), MAGIC.to_vec());
    signature.public_key().encode(&mut key).ok()?;
    algorithm.as_str().encode(&mut inner).ok()?;
    own.encode(&mut inner).ok()?;
    inner.extend_from_slice(trailer);
    VERSION.encode(&mut all).ok()?;
    key.encode(&mut all).ok()?;
    signature.namespace().encode(&mut all).ok()?;
    // The reserved part, which is empty.
    "".encode(&mut all).ok()?;
    signature.hash_alg().as_str().encode(&mut all).ok()?;
    inner.encode(&mut all).ok()?;
    Some(all)
}

/// Returns whether a signature is valid for a message and for the key and the namespace in it.
pub(crate) fn is_valid(signature: &SshSig, message: &[u8]) -> bool {
    let signed = SshSig::signed_data(signature.namespace(), signature.hash_alg(), message);
    signed.is_ok_and(|signed| verify(signature, &signed).is_some())
}

/// Verifies the signature over the data that was signed; `None` if it is not valid.
fn verify(signature: &SshSig, signed: &[u8]) -> Option<()> {
    let (algorithm, bytes) = (signature.signature().algorithm(), signature.signature_bytes());
    match signature.public_key() {
        KeyData::Ed25519(key) if algorithm == Algorithm::Ed25519 => check(&ED25519, &key.0, signed, bytes),
        KeyData::Ecdsa(EcdsaPublicKey::NistP256(key)) if matches!(algorithm, Algorithm::Ecdsa { .. }) => {
            check(&ECDSA_P256_SHA256_FIXED, key.as_bytes(), signed, &fixed_ecdsa(bytes, 32)?)
        }
        KeyData::Ecdsa(EcdsaPublicKey::NistP384(key)) if matches!(algorithm, Algorithm::Ecdsa { .. }) => {
            check(&ECDSA_P384_SHA384_FIXED, key.as_bytes(), signed, &fixed_ecdsa(bytes, 48)?)
        }
        KeyData::Rsa(key) => {
            let parameters = match algorithm {
                Algorithm::Rsa { hash: Some(HashAlg::Sha256) } => &RSA_PKCS1_2048_8192_SHA256,
                Algorithm::Rsa { hash: Some(HashAlg::Sha512) } => &RSA_PKCS1_2048_8192_SHA512,
                _ => return None,
            };
            let (n, e) = (key.n.as_positive_bytes()?, key.e.as_positive_bytes()?);
            RsaPublicKeyComponents { n, e }.verify(parameters, signed, bytes).ok()
        }
        KeyData::SkEd25519(key) if algorithm == Algorithm::SkEd25519 => {
            let (bytes, signed) = security_key_data(bytes, key.application(), signed)?;
            check(&ED25519, &key.public_key().0, &signed, bytes)
        }
        KeyData::SkEcdsaSha2NistP256(key) if algorithm == Algorithm::SkEcdsaSha2NistP256 => {
            let (bytes, signed) = security_key_data(bytes, key.application(), signed)?;
            check(&ECDSA_P256_SHA256_FIXED, key.ec_point().as_bytes(), &signed, &fixed_ecdsa(bytes, 32)?)
        }
        _ => None,
    }
}

fn check(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], signed: &[u8], signature: &[u8]) -> Option<()> {
    UnparsedPublicKey::new(algorithm, key).verify(signed, signature).ok()
}

/// Splits the signature of a security key, and returns what the key has signed: the hash of the application, flags and
/// counter, and the hash of the data. `None` unless a person touched the key.
fn security_key_data<'a>(bytes: &'a [u8], application: &str, signed: &[u8]) -> Option<(&'a [u8], Vec<u8>)> {
    let (bytes, trailer) = bytes.split_at_checked(bytes.len().checked_sub(SECURITY_KEY_TRAILER_BYTES)?)?;
    if trailer.first()? & USER_PRESENT == 0 {
        return None;
    }
    let application = digest(&SHA256, application.as_bytes());
    Some((bytes, [application.as_ref(), trailer, digest(&SHA256, signed).as_ref()].concat()))
}

/// Converts two numbers with their lengths into two numbers of a fixed size.
fn fixed_ecdsa(bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut fixed = Vec::with_capacity(2 * size);
    let mut rest = bytes;
    for _ in 0..2 {
        let (length, later) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let (number, later) = later.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let number = number.get(start..)?;
        fixed.resize(fixed.len() + size.checked_sub(number.len())?, 0);
        fixed.extend_from_slice(number);
        rest = later;
    }
    rest.is_empty().then_some(fixed)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use ssh_key::public::{Ed25519PublicKey, SkEcdsaSha2NistP256, SkEd25519};

    use super::*;

    const NAMESPACE: &str = "approval@wardroom";
    const MESSAGE: &[u8] = b"a statement";
    const APPLICATION: &str = "ssh:";
    /// Flags, with which a person touched the key, and the counter.
    const TRAILER: [u8; SECURITY_KEY_TRAILER_BYTES] = [USER_PRESENT, 0, 0, 1, 2];

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    /// The text of a security key's signature, part by part as `PROTOCOL.sshsig` and `PROTOCOL.u2f` have it.
    fn text(key: &KeyData, version: u32, reserved: &[u8], signature: &[u8]) -> String {
        let mut public = Vec::new();
        key.encode(&mut public).unwrap();
        let inner = [string(key.algorithm().as_str().as_bytes()), string(signature), TRAILER.to_vec()].concat();
        let parts = [&public[..], NAMESPACE.as_bytes(), reserved, &b"sha512"[..], &inner[..]].map(string).concat();
        let bytes = STANDARD.encode([MAGIC, &version.to_be_bytes()[..], &parts[..]].concat());
        let lines: Vec<&str> = bytes.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
    }

    /// What the key signs for [`MESSAGE`].
    fn signed() -> Vec<u8> {
        let data = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, MESSAGE).unwrap();
        let application = digest(&SHA256, APPLICATION.as_bytes());
        [application.as_ref(), &TRAILER[..], digest(&SHA256, &data).as_ref()].concat()
    }

    /// A number as OpenSSH writes it: without zeros before it, but for one that tells it from a negative one.
    fn number(bytes: &[u8]) -> Vec<u8> {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap();
        let sign: &[u8] = if bytes[start] & 0x80 == 0 { &[] } else { &[0] };
        string(&[sign, &bytes[start..]].concat())
    }

    fn check_signature(key: &KeyData, signature: &[u8]) {
        let valid = text(key, VERSION, b"", signature);
        let parsed = SshSig::from_pem(&valid).unwrap();
        assert!(is_valid(&parsed, MESSAGE) && is_canonical(&parsed, &valid), "{}", key.algorithm());
        assert_eq!(to_text(&parsed).as_ref(), Some(&valid), "what this build writes, every build reads");
        assert!(!is_valid(&parsed, b"another statement"));
        for (what, other) in [("version", text(key, 0, b"", signature)), ("reserved", text(key, 1, b"x", signature))] {
            let is_accepted = SshSig::from_pem(&other).is_ok_and(|parsed| is_canonical(&parsed, &other));
            assert!(!is_accepted, "{what}: it is not signed");
        }
    }

    #[test]
    fn signatures_of_security_keys_are_valid_in_one_text() {
        let random = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let public = Ed25519PublicKey(pair.public_key().as_ref().try_into().unwrap());
        let key = KeyData::SkEd25519(SkEd25519::new(public, APPLICATION));
        check_signature(&key, pair.sign(&signed()).as_ref());

        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let EcdsaPublicKey::NistP256(point) = EcdsaPublicKey::from_sec1_bytes(pair.public_key().as_ref()).unwrap()
        else {
            unreachable!("it was made for this curve")
        };
        let key = KeyData::SkEcdsaSha2NistP256(SkEcdsaSha2NistP256::new(point, APPLICATION));
        let signature = pair.sign(&random, &signed()).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        check_signature(&key, &[number(r), number(s)].concat());
    }
}
