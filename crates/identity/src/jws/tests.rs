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
    // Made with `openssl genrsa` and `openssl dgst -sha256 -sign`.
    let modulus = concat!(
        "2XzXPN7G5m_nOgNEvL5U06tqaWDvQmrb-vy33BnYg8Ci0DYqBIXEcGzUr1xN0ySEJcU6QTjdvIKlxpGDto6ABDWF_D8E03wrBerL",
        "guDm2rJbfpP3t2nQKAh1F4_NiStz93QkBolHlpdUY66kJmlhkj51QkpKOFZNtQKSVFjWSOL8bwY1J_Xd1D104ol3XAf7RGbUph3M",
        "YY1p3OQSQ43gUpwiFAk9pQWz7GhiL5DaXWxgnGK3Y9fmKUhVgLxIFr4xfT-Rzl0pDsKDe6TT25s0xcePz92H_lwTl1q47BlUTdJg",
        "MMoedirT6LD5qtMGSiHKyYuUgHQGTuRlvdLyE98lpw"
    );
    let set = json!({ "keys": [{ "kty": "RSA", "n": modulus, "e": "AQAB" }] });
    let token = concat!(
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UifQ.OGWeILVrnCvULVCKiMdXTUQ6UxkdN5eR60uvPUiSu84Sd6SqyfwCGDKQub_t",
        "SSdyr8sn66o6WeOAnjf-PbtKJGG99vGLkJZLz3tqdXrEW6BBZBOX7shOpoXwN6aSjanBLSUQFSM9DMv3VE4ZKOOUgFCiVrMWTFZ7",
        "ci9AfKsERWr3gzbBTCMW71AoPnbmalKKUIiYg2USvQsHnJbbPxt5sGytUThEWkPiG6KepVVJ04-TGukNi2fFtWuUQinpo40PdWDB",
        "xeByvqugP2cbB73dZuw7-4M8Q_eMVNkX4ZxuC1jWgpQalj-x_G_zAaPfJCWXUKQV7qP1wxZddfUtixQ3DQ"
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
