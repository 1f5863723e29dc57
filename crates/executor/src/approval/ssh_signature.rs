//! Verification of SSH signatures with `ring`, for every type of key that OpenSSH signs with by default.
//!
//! `ssh-key` decodes keys and signatures (`PROTOCOL.sshsig`, `PROTOCOL.u2f`); the arithmetic is that of `ring`, which
//! Wardroom has anyway, so that no second implementation of the same curves is linked, and RSA keys work, too.

use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, SshSig};

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
