use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use wardroom_testing::TestIssuer;

use super::*;

fn keys_of(issuer: &TestIssuer) -> JwkSet {
    JwkSet::parse(&issuer.jwk_set()).unwrap()
}

fn claims() -> Value {
    json!({ "iss": "https://issuer.example", "sub": "alice" })
}

fn verified(token: &str, keys: &JwkSet) -> Result<Value, TokenError> {
    verify(token, keys)
}

#[test]
fn a_token_of_the_issuer_is_read() {
    let issuer = TestIssuer::new("k1");
    assert_eq!(verified(&issuer.sign(&claims()), &keys_of(&issuer)), Ok(claims()));
    let without_id = issuer.sign_with_header(&json!({ "alg": "ES256" }), &claims());
    assert_eq!(verified(&without_id, &keys_of(&issuer)), Ok(claims()), "each key that fits is tried");
}

#[test]
fn what_a_token_says_of_itself_selects_only_among_the_issuers_keys() {
    let (issuer, other) = (TestIssuer::new("k1"), TestIssuer::new("k1"));
    let keys = keys_of(&issuer);
    assert_eq!(verified(&other.sign(&claims()), &keys), Err(TokenError::WrongSignature), "the same id, another key");
    let unknown = TestIssuer::new("k2").sign(&claims());
    assert_eq!(verified(&unknown, &keys), Err(TokenError::UnknownKey("k2".to_owned())));
    let own_key = json!({ "alg": "ES256", "kid": "k1", "jwk": other.jwk(), "jku": "https://evil.example" });
    assert_eq!(verified(&other.sign_with_header(&own_key, &claims()), &keys), Err(TokenError::WrongSignature));
    for algorithm in ["none", "None", "HS256", "HS512", "", "es256"] {
        let header = json!({ "alg": algorithm, "kid": "k1" });
        let token = issuer.sign_with_header(&header, &claims());
        assert!(matches!(verified(&token, &keys), Err(TokenError::Malformed(_))), "{algorithm}");
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert!(verified(&format!("{signed}."), &keys).is_err(), "{algorithm} without a signature");
    }
    for algorithm in ["RS256", "ES384", "EdDSA"] {
        let token = issuer.sign_with_header(&json!({ "alg": algorithm, "kid": "k1" }), &claims());
        assert_eq!(verified(&token, &keys), Err(TokenError::WrongSignature), "{algorithm}: the key has another one");
    }
    let critical = issuer.sign_with_header(&json!({ "alg": "ES256", "kid": "k1", "crit": ["b64"] }), &claims());
    assert!(matches!(verified(&critical, &keys), Err(TokenError::Malformed(_))));
}

#[test]
fn each_kind_of_key_is_used_with_its_algorithm() {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }).to_string();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "alg": "EdDSA" })), encode(&claims()));
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())));
    assert_eq!(verified(&token, &JwkSet::parse(&set).unwrap()), Ok(claims()));
    // RFC 7515, appendix A.2.
    let set = json!({ "keys": [{ "kty": "RSA", "n": concat!(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ",
        "S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2",
        "R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcD",
        "TW9gb54h4FRWyuXpoQ"), "e": "AQAB" }] });
    let token = concat!(
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0",
        "cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJ",
        "dbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTlWzO75vRK5h6xBArLIARNPvkSjtQBMHlUL07Qe7K0GarZRmB_eSN9383LcOLn",
        "6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0i",
        "gcN_IoypGlUPQGe77Rw"
    );
    let read = verified(token, &JwkSet::parse(&set.to_string()).unwrap()).unwrap();
    assert_eq!(read["iss"], "joe");
}

#[test]
fn sets_without_a_usable_key_are_refused() {
    let encryption = json!({ "kty": "EC", "crv": "P-256", "use": "enc", "x": "AA", "y": "AA" });
    let weak = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB" });
    let symmetric = json!({ "kty": "oct", "k": "c2VjcmV0" });
    for keys in [json!([]), json!([encryption, weak, symmetric]), json!([1, {}]), json!({})] {
        assert!(JwkSet::parse(&json!({ "keys": keys }).to_string()).is_err(), "{keys}");
    }
    assert!(JwkSet::parse("<html>").is_err());
}

#[test]
fn a_static_token_is_told_from_a_signed_one() {
    let issuer = TestIssuer::new("k1");
    assert!(is_signed_token(&issuer.sign(&claims())));
    for text in ["wr_0123", "ey", "ey.a", "a.b.c", "ey.a.b.c.d", ""] {
        assert!(!is_signed_token(text), "{text}");
    }
}

proptest! {
    #[test]
    fn any_changed_byte_is_found(index in 0_usize..1000, bit in 0_u8..7) {
        let issuer = TestIssuer::new("k1");
        let token = issuer.sign(&claims());
        let mut bytes = token.clone().into_bytes();
        let index = index % bytes.len();
        bytes[index] ^= 1 << bit;
        let changed = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert!(verified(&changed, &keys_of(&issuer)).is_err(), "{changed}");
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}", dots in "[a-zA-Z0-9_.-]{0,200}") {
        let issuer = TestIssuer::new("k1");
        prop_assert!(verified(&text, &keys_of(&issuer)).is_err());
        prop_assert!(verified(&dots, &keys_of(&issuer)).is_err());
    }
}
