//! Passkeys: WebAuthn registrations and assertions (level 2), verified without a browser library.
//!
//! ```text
//! registration: client data (challenge, origin) + attestation object ─► credential id, public key
//! assertion:    client data (challenge, origin) + authenticator data + signature ─► who, and that they were present
//! ```
//!
//! Problem: all of it comes from a browser. Model: each part that the standard requires is checked: type, challenge,
//! origin, no foreign frame, relying party, presence and verification of the person, signature. Attestation is not: a
//! passkey is trusted because its owner registered it, or an operator listed it, not for its make.

mod authenticator_data;
mod client_data;
mod cose_key;
mod passkey_error;
mod relying_party;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

pub use wardroom_domain::approval_proof::PasskeyAssertion as Assertion;

use crate::public_key::{Algorithm, EcdsaForm, PublicKey};
use authenticator_data::AuthenticatorData;
use client_data::ClientData;
use passkey_error::malformed;

pub use passkey_error::PasskeyError;
pub use relying_party::RelyingParty;

/// Maximum length of each part, in bytes.
const MAX_PART_BYTES: usize = 16 << 10;

/// A passkey as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Its id, in base64url.
    pub id: String,
    /// Its public key (COSE), in base64url.
    pub public_key: String,
    /// How often it has signed; 0 if it does not count.
    pub sign_count: u32,
}

/// What a browser returns when a passkey is made. Every part is in base64url.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// `response.clientDataJSON`.
    pub client_data: String,
    /// `response.attestationObject`.
    pub attestation_object: String,
}

/// The attestation object; its statement is not read.
#[derive(Debug, Deserialize)]
struct AttestationObject {
    #[serde(rename = "authData")]
    authenticator_data: ciborium::Value,
}

/// Verifies the registration of a passkey for a challenge (in base64url).
///
/// # Errors
/// Returns an error that names the part or the rule.
pub fn verify_registration(
    registration: &Registration,
    challenge: &str,
    party: &RelyingParty,
) -> Result<Passkey, PasskeyError> {
    let client_data = decode("client_data", &registration.client_data)?;
    ClientData::parse(&client_data)?.check("webauthn.create", challenge, party)?;
    let object = decode("attestation_object", &registration.attestation_object)?;
    let unreadable = |reason: &str| malformed("attestation_object", reason);
    let object: AttestationObject =
        ciborium::from_reader(object.as_slice()).map_err(|_| unreadable("it is not the CBOR of an attestation"))?;
    let data = object.authenticator_data.as_bytes().ok_or_else(|| unreadable("authData is no byte string"))?;
    let data = AuthenticatorData::parse(data)?;
    data.check(party)?;
    let attested = data.attested.ok_or_else(|| unreadable("it has no credential"))?;
    cose_key::read(&attested.public_key)?;
    Ok(Passkey {
        id: URL_SAFE_NO_PAD.encode(&attested.id),
        public_key: URL_SAFE_NO_PAD.encode(&attested.public_key),
        sign_count: data.sign_count,
    })
}

/// Verifies that a passkey has signed a challenge (in base64url), and returns how often it has signed.
///
/// # Errors
/// Returns an error that names the part or the rule.
pub fn verify_assertion(
    assertion: &Assertion,
    passkey: &Passkey,
    challenge: &str,
    party: &RelyingParty,
) -> Result<u32, PasskeyError> {
    if assertion.id != passkey.id {
        return Err(PasskeyError::Refused("it is the answer of another passkey".to_owned()));
    }
    let client_data = decode("client_data", &assertion.client_data)?;
    ClientData::parse(&client_data)?.check("webauthn.get", challenge, party)?;
    let data = decode("authenticator_data", &assertion.authenticator_data)?;
    let parsed = AuthenticatorData::parse(&data)?;
    parsed.check(party)?;
    let (key, algorithm) = public_key(&passkey.public_key)?;
    let signed = [data.as_slice(), digest(&SHA256, &client_data).as_ref()].concat();
    let signature = decode("signature", &assertion.signature)?;
    if !key.verifies(algorithm, EcdsaForm::Asn1, &signed, &signature) {
        return Err(PasskeyError::WrongSignature);
    }
    // A copy of the passkey counts on its own, so that one of the two falls behind.
    let counts = passkey.sign_count > 0 || parsed.sign_count > 0;
    if counts && parsed.sign_count <= passkey.sign_count {
        let detail = "its counter did not increase: the answer is a repeated one, or there is a copy of the passkey";
        return Err(PasskeyError::Refused(detail.to_owned()));
    }
    Ok(parsed.sign_count)
}

/// Reads a passkey's public key.
///
/// # Errors
/// Returns an error if it is not the base64url of a COSE key of P-256, P-384, Ed25519 or RSA.
pub fn public_key(text: &str) -> Result<(PublicKey, Algorithm), PasskeyError> {
    cose_key::read(&decode("public_key", text)?)
}

fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, PasskeyError> {
    if text.len() > MAX_PART_BYTES {
        return Err(malformed(part, &format!("it has more than {MAX_PART_BYTES} bytes")));
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed(part, "it is not base64url without padding"))
}

#[cfg(test)]
mod tests;
