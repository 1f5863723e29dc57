//! A passkey's public key: COSE (RFC 9052), with the algorithms that authenticators use.

use ciborium::Value;

use super::passkey_error::{PasskeyError, malformed};
use crate::public_key::{Algorithm, PublicKey};

/// Labels of a key's parameters.
const KEY_TYPE: i64 = 1;
const ALGORITHM: i64 = 3;
const CURVE_OR_N: i64 = -1;
const X_OR_E: i64 = -2;
const Y: i64 = -3;

/// Reads a key with its algorithm.
pub(super) fn read(bytes: &[u8]) -> Result<(PublicKey, Algorithm), PasskeyError> {
    let invalid = |reason: &str| malformed("public_key", reason);
    let mut reader = bytes;
    let value: Value = ciborium::from_reader(&mut reader).map_err(|_| invalid("it is no CBOR"))?;
    if !reader.is_empty() {
        return Err(invalid("there is something after the key"));
    }
    let Value::Map(entries) = value else { return Err(invalid("it is no map")) };
    let find =
        |label: i64| entries.iter().find(|(key, _)| key.as_integer() == Some(label.into())).map(|(_, value)| value);
    let number = |label| find(label).and_then(Value::as_integer).and_then(|number| i64::try_from(number).ok());
    let bytes = |label| find(label).and_then(Value::as_bytes).map(Vec::as_slice).unwrap_or_default();
    let key = match (number(KEY_TYPE), number(ALGORITHM), number(CURVE_OR_N)) {
        (Some(2), Some(-7), Some(1)) => (PublicKey::point(bytes(X_OR_E), bytes(Y), 32), Algorithm::Es256),
        (Some(2), Some(-35), Some(2)) => (PublicKey::point(bytes(X_OR_E), bytes(Y), 48), Algorithm::Es384),
        (Some(1), Some(-8), Some(6)) => (PublicKey::ed25519(bytes(X_OR_E)), Algorithm::EdDsa),
        (Some(3), Some(-257), None) => (PublicKey::rsa(bytes(CURVE_OR_N), bytes(X_OR_E)), Algorithm::Rs256),
        _ => return Err(invalid("its algorithm is not ES256, ES384, EdDSA or RS256")),
    };
    Ok((key.0.map_err(|reason| invalid(&reason))?, key.1))
}
