//! RFC 8785 canonical JSON and its SHA-256, used for plan approval and the audit chain.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Returns the canonical JSON of a value (RFC 8785: sorted keys, one representation per number).
///
/// # Errors
/// Returns an error if a value cannot be represented in JSON, such as NaN.
pub fn canonical_json<T: Serialize>(value: &T) -> Result<String, String> {
    serde_json_canonicalizer::to_string(value).map_err(|error| error.to_string())
}

/// Returns the SHA-256 as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the first ten hex digits of a text's SHA-256: a short display id.
pub fn short_hash(text: &str) -> String {
    let mut hash = sha256_hex(text.as_bytes());
    hash.truncate(10);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_key_order_and_spacing() {
        let a: serde_json::Value = serde_json::from_str(r#"{"b": 1.0, "a": [1e2, "é"]}"#).unwrap();
        let b: serde_json::Value = serde_json::from_str(r#"{"a":[100,"é"],"b":1}"#).unwrap();
        assert_eq!(canonical_json(&a).unwrap(), canonical_json(&b).unwrap());
        assert_eq!(short_hash(""), "e3b0c44298");
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
