//! Random secrets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wardroom_domain::canonical::sha256_hex;

/// Returns 256 random bits in base64url.
pub fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// Returns a secret of 256 random bits with its SHA-256 in hex, which is what is kept.
pub fn random_secret() -> (String, String) {
    let secret = random_text();
    let digest = sha256_hex(secret.as_bytes());
    (secret, digest)
}
