//! The keys of an issuer: a JWK set (RFC 7517).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::public_key::{Algorithm, PublicKey};

/// Maximum number of keys that are read of a set.
const MAX_KEYS: usize = 64;

/// The signing keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

/// A signing key.
#[derive(Clone, Debug)]
struct Jwk {
    id: Option<String>,
    /// The only algorithm that it may be used with, if the issuer says so.
    algorithm: Option<Algorithm>,
    key: PublicKey,
}

#[derive(Debug, Deserialize)]
struct SetDocument {
    keys: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct KeyDocument {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl JwkSet {
    /// Parses a set. Keys that are for encryption, of an unknown type or too weak are left out.
    ///
    /// # Errors
    /// Returns the reason if the text is no set, or no key of it can be used.
    pub fn parse(text: &str) -> Result<Self, String> {
        let set: SetDocument = serde_json::from_str(text).map_err(|error| format!("it is no JWK set: {error}"))?;
        let listed = set.keys.len();
        let keys: Vec<Jwk> = set.keys.into_iter().take(MAX_KEYS).filter_map(Jwk::read).collect();
        if keys.is_empty() {
            return Err(format!("none of its {listed} keys can be used: RSA from 2048 bits, P-256, P-384 or Ed25519"));
        }
        Ok(Self { keys })
    }

    /// Returns whether there is a key of this id.
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Returns the keys that can have signed: the one with the id, or without an id each that fits the algorithm.
    pub(crate) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &PublicKey> {
        let fits = move |key: &&Jwk| {
            id.is_none_or(|id| key.id.as_deref() == Some(id))
                && key.algorithm.is_none_or(|only| only == algorithm)
                && key.key.fits(algorithm)
        };
        self.keys.iter().filter(fits).map(|key| &key.key)
    }
}

impl Jwk {
    fn read(document: serde_json::Value) -> Option<Self> {
        let key: KeyDocument = serde_json::from_value(document).ok()?;
        if key.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let algorithm = key.alg.as_deref().map(Algorithm::parse);
        if algorithm == Some(None) {
            return None;
        }
        let bytes = |field: &Option<String>| URL_SAFE_NO_PAD.decode(field.as_deref()?.trim_end_matches('=')).ok();
        let public = match (key.kty.as_str(), key.crv.as_deref()) {
            ("RSA", _) => PublicKey::rsa(&bytes(&key.n)?, &bytes(&key.e)?),
            ("EC", Some("P-256")) => PublicKey::point(&bytes(&key.x)?, &bytes(&key.y)?, 32),
            ("EC", Some("P-384")) => PublicKey::point(&bytes(&key.x)?, &bytes(&key.y)?, 48),
            ("OKP", Some("Ed25519")) => PublicKey::ed25519(&bytes(&key.x)?),
            _ => return None,
        };
        Some(Self { id: key.kid, algorithm: algorithm.flatten(), key: public.ok()? })
    }
}
