use serde_json::{Value, json};
use wardroom_testing::TestIssuer;

use super::*;
use crate::scopes::Scope;

const ISSUER: &str = "https://ci.example";

fn keys_of(issuer: &TestIssuer) -> JwkSet {
    JwkSet::parse(&issuer.jwk_set()).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn settings() -> MachineIssuer {
    serde_json::from_value(json!({
        "issuer": ISSUER, "audience": "wardroom", "scopes": ["incidents:read", "incidents:write"],
        "require": { "repository": "ops/deploy" },
    }))
    .unwrap()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "wardroom", "sub": "deploy", "exp": 1000, "iat": 900, "repository": "ops/deploy",
        "scope": "incidents:read incidents:write actions:approve tools:manage other",
    })
}

fn changed(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

fn table(issuer: &TestIssuer) -> MachineTokens {
    let table = MachineTokens::new(&[settings()]);
    table.set_keys(ISSUER, keys_of(issuer), at(0));
    table
}

#[test]
fn a_token_has_the_scopes_that_both_it_and_the_configuration_have() {
    let issuer = TestIssuer::new("k1");
    let caller = table(&issuer).authenticate(&issuer.sign(&claims()), at(950)).unwrap();
    assert_eq!(caller.scopes.words(), "incidents:read incidents:write");
    assert_eq!((caller.identity.principal.as_str(), caller.identity.tenant), ("machine:deploy", settings().tenant));
    assert!(!caller.scopes.has(Scope::ActionsApprove) && caller.session.is_none());
    let none = issuer.sign(&changed("scope", json!("openid")));
    assert!(table(&issuer).authenticate(&none, at(950)).unwrap().scopes.is_empty(), "known, and may do nothing");
    let listed = issuer.sign(&changed("scope", json!(["incidents:read"])));
    assert_eq!(table(&issuer).authenticate(&listed, at(950)).unwrap().scopes.words(), "incidents:read");
    let several = issuer.sign(&changed("aud", json!(["other", "wardroom"])));
    assert!(table(&issuer).authenticate(&several, at(950)).is_ok());
}

#[test]
fn hostile_tokens_are_refused_with_the_claim() {
    let issuer = TestIssuer::new("k1");
    for (claim, value, named) in [
        ("iss", json!("https://evil.example"), "iss"),
        ("aud", json!("other"), "aud"),
        ("aud", json!([]), "aud"),
        ("exp", json!(800), "exp"),
        ("exp", Value::Null, "exp"),
        ("nbf", json!(2000), "nbf"),
        ("iat", json!(2000), "iat"),
        ("sub", json!("a b"), "principal-claim"),
        ("sub", Value::Null, "principal-claim"),
        ("repository", json!("evil/deploy"), "require"),
        ("repository", Value::Null, "require"),
        ("exp", json!("1000"), "cannot be read"),
    ] {
        let refused = table(&issuer).authenticate(&issuer.sign(&changed(claim, value.clone())), at(950)).unwrap_err();
        let MachineRefusal::Invalid(reason) = &refused else { panic!("{claim}: {refused:?}") };
        assert!(reason.contains(named), "{claim} = {value}: {reason}");
    }
    let other = TestIssuer::new("k1").sign(&claims());
    assert!(matches!(table(&issuer).authenticate(&other, at(950)), Err(MachineRefusal::Invalid(_))));
}

#[test]
fn a_new_key_is_asked_for_at_most_every_ten_seconds() {
    let (old, new) = (TestIssuer::new("k1"), TestIssuer::new("k2"));
    let table = MachineTokens::new(&[settings()]);
    let needed = Err(MachineRefusal::KeysNeeded(ISSUER.to_owned()));
    assert_eq!(table.authenticate(&old.sign(&claims()), at(950)), needed, "never read");
    table.set_keys(ISSUER, keys_of(&old), at(950));
    assert!(table.authenticate(&old.sign(&claims()), at(951)).is_ok());
    assert!(matches!(table.authenticate(&new.sign(&claims()), at(959)), Err(MachineRefusal::Invalid(_))));
    assert_eq!(table.authenticate(&new.sign(&claims()), at(960)), needed);
    table.set_keys(ISSUER, keys_of(&new), at(960));
    assert!(table.authenticate(&new.sign(&claims()), at(961)).is_ok());
    assert!(table.authenticate(&old.sign(&claims()), at(961)).is_err(), "the old key is gone");
}
