//! Issuers and authenticators of tests: they sign what real ones sign, with keys of their own, and whatever a hostile
//! one could.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use serde_json::{Value, json};
use wardroom_domain::approval_proof::PasskeyAssertion;

/// Id of the credential of every [`Authenticator`], as bytes.
const CREDENTIAL_ID: &[u8] = b"credential";
/// The person was present and verified.
pub const PRESENT_AND_VERIFIED: u8 = 0b0000_0101;
/// The same, with a new credential.
pub const WITH_CREDENTIAL: u8 = 0b0100_0101;

/// An issuer of signed tokens, with one P-256 key.
#[derive(Debug)]
pub struct TestIssuer {
    key: EcdsaKeyPair,
    id: String,
}

impl TestIssuer {
    /// Makes an issuer with a new key of this id.
    pub fn new(id: &str) -> Self {
        Self { key: new_key(&ECDSA_P256_SHA256_FIXED_SIGNING), id: id.to_owned() }
    }

    /// Returns the public key as a JWK.
    pub fn jwk(&self) -> Value {
        let (x, y) = coordinates(&self.key);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "alg": "ES256", "use": "sig", "x": x, "y": y })
    }

    /// Returns the JWK set with the key.
    pub fn jwk_set(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with_header(&json!({ "alg": "ES256", "kid": self.id }), claims)
    }

    /// Signs claims under a header, which may lie.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a key that was made here signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An authenticator with one passkey, whose answers a test can change.
#[derive(Debug)]
pub struct Authenticator {
    key: EcdsaKeyPair,
    /// Id of the relying party.
    pub party: String,
    /// Origin of the page.
    pub origin: String,
    /// `webauthn.get` or `webauthn.create`.
    pub kind: String,
    /// Flags of an assertion.
    pub flags: u8,
    /// The counter of signatures.
    pub count: u32,
}

impl Authenticator {
    /// Makes one for the pages of a host with TLS.
    pub fn new(host: &str) -> Self {
        Self {
            key: new_key(&ECDSA_P256_SHA256_ASN1_SIGNING),
            party: host.to_owned(),
            origin: format!("https://{host}"),
            kind: "webauthn.get".to_owned(),
            flags: PRESENT_AND_VERIFIED,
            count: 7,
        }
    }

    /// Replaces the key.
    pub fn forget_key(&mut self) {
        self.key = new_key(&ECDSA_P256_SHA256_ASN1_SIGNING);
    }

    /// Returns the id of the passkey, in base64url.
    pub fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(CREDENTIAL_ID)
    }

    /// Returns the public key (COSE), in base64url.
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.cose_key())
    }

    /// Returns `clientDataJSON` for a challenge.
    pub fn client_data(&self, challenge: &str) -> Vec<u8> {
        json!({ "type": self.kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false })
            .to_string()
            .into_bytes()
    }

    /// Registers the passkey: `clientDataJSON` and `attestationObject`, in base64url.
    pub fn register(&self, challenge: &str, flags: u8) -> (String, String) {
        let length = u16::try_from(CREDENTIAL_ID.len()).unwrap_or_default().to_be_bytes();
        // An empty map of extensions follows the key.
        let credential = [[0; 16].as_slice(), &length, CREDENTIAL_ID, &self.cose_key(), &[0xa0]].concat();
        let object = Cbor::Map(vec![
            ("fmt".into(), "none".into()),
            ("attStmt".into(), Cbor::Map(Vec::new())),
            ("authData".into(), Cbor::from([self.data(flags), credential].concat())),
        ]);
        (URL_SAFE_NO_PAD.encode(self.client_data(challenge)), URL_SAFE_NO_PAD.encode(encoded(&object)))
    }

    /// Signs a challenge.
    pub fn assert(&self, challenge: &str) -> PasskeyAssertion {
        let (client_data, data) = (self.client_data(challenge), self.data(self.flags));
        let signed = [data.as_slice(), digest(&SHA256, &client_data).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).expect("a key that was made here signs");
        PasskeyAssertion {
            id: self.id(),
            client_data: URL_SAFE_NO_PAD.encode(client_data),
            authenticator_data: URL_SAFE_NO_PAD.encode(data),
            signature: URL_SAFE_NO_PAD.encode(signature),
        }
    }

    fn data(&self, flags: u8) -> Vec<u8> {
        let hash = digest(&SHA256, self.party.as_bytes());
        [hash.as_ref(), &[flags], &self.count.to_be_bytes()].concat()
    }

    fn cose_key(&self) -> Vec<u8> {
        let (x, y) = coordinates(&self.key);
        let parameters = [
            (1, Cbor::from(2)),
            (3, Cbor::from(-7)),
            (-1, Cbor::from(1)),
            (-2, Cbor::from(x.to_vec())),
            (-3, Cbor::from(y.to_vec())),
        ];
        encoded(&Cbor::Map(parameters.into_iter().map(|(label, value)| (Cbor::from(label), value)).collect()))
    }
}

fn new_key(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("the system has random numbers");
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("a key that was made here is one")
}

/// The coordinates of an uncompressed point.
fn coordinates(key: &EcdsaKeyPair) -> (&[u8], &[u8]) {
    let point = key.public_key().as_ref();
    point.get(1..).unwrap_or_default().split_at(32)
}

fn encoded(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a vector takes every byte");
    bytes
}
