//! What a browser proves, and what a server that is taken over makes of it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use wardroom_domain::TenantId;
use wardroom_domain::approval_proof::{ProofAction, Statement};
use wardroom_identity::jwk_set::JwkSet;
use wardroom_testing::{Authenticator, TestIssuer};

use super::*;
use crate::approval::proof_key::kind_of;
use crate::approval::tests::{changed_bits, changed_characters};
use crate::approval::verify;

const HOST: &str = "wardroom.example";
const ISSUER: &str = "https://login.example";
const NOW: &str = "2026-11-30T14:00:00Z";

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn hash(digits: &str) -> String {
    digits.repeat(32)
}

fn claim() -> Claim {
    Claim::about_plan(ProofAction::Approve, &TenantId::main(), "incident", &hash("ab"))
}

fn statement() -> Statement {
    Statement::about_plan(ProofAction::Approve, TenantId::main(), "incident".into(), hash("ab"), now())
}

/// Alice has a passkey and an account.
fn listing(passkey: &Authenticator) -> ExecutorConfig {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("executor.yaml");
    let text = json!({
        "approvers": [{
            "tenant": "main",
            "passkeys": format!("# comment\nalice {} {} laptop\n", passkey.id(), passkey.public_key()),
            "accounts": format!("alice {ISSUER} 0001\n"),
        }],
        "browser": {
            "rp-id": HOST, "origins": [format!("https://{HOST}")],
            "issuers": [{ "issuer": ISSUER, "client-id": "wardroom-approvals" }],
        },
    });
    std::fs::write(&path, text.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    ExecutorConfig::load(&path).unwrap()
}

fn proof(time: Timestamp) -> SignedProof {
    SignedProof::ssh(time, String::new(), None)
}

fn by_passkey(passkey: &Authenticator, statement: &Statement) -> SignedProof {
    let assertion = passkey.assert(&statement.challenge().unwrap());
    SignedProof { passkey: Some(assertion), break_glass: statement.reason.clone(), ..proof(statement.time) }
}

fn claims(statement: &Statement) -> Value {
    let seconds = now().seconds_f64();
    json!({
        "iss": ISSUER, "aud": "wardroom-approvals", "sub": "0001", "nonce": statement.challenge().unwrap(),
        "iat": seconds, "exp": seconds + 300.0, "auth_time": seconds - 5.0,
    })
}

fn by_id_token(issuer: &TestIssuer, claims: &Value) -> SignedProof {
    SignedProof { id_token: Some(issuer.sign(claims)), ..proof(now()) }
}

fn with_keys(mut config: ExecutorConfig, issuer: &TestIssuer) -> ExecutorConfig {
    let settings = config.browser.issuer(ISSUER).cloned().unwrap();
    config.issuer_keys = Some((settings, JwkSet::parse(&issuer.jwk_set()).unwrap()));
    config
}

fn refusal(config: &ExecutorConfig, proof: &SignedProof) -> (RefusalCode, String) {
    verify(config, &claim(), &proof.to_text().unwrap(), now()).unwrap_err()
}

#[test]
fn a_passkey_proves_the_plan_that_it_has_signed() {
    let passkey = Authenticator::new(HOST);
    let config = listing(&passkey);
    let proven = verify(&config, &claim(), &by_passkey(&passkey, &statement()).to_text().unwrap(), now()).unwrap();
    assert_eq!((proven.principal.as_str(), proven.kind), ("alice", ProofKind::Passkey));
    assert_eq!(kind_of(proven.key.as_deref()), ProofKind::Passkey);
    let (main, alice) = (TenantId::main(), &proven.principal);
    assert!(config.is_approver(&main, alice, proven.key.as_deref()));
    assert!(!config.is_approver(&TenantId::new("other").unwrap(), alice, proven.key.as_deref()));
    assert!(!config.is_approver(&main, alice, Some("passkey:other")));
    let kinds: Vec<ProofKind> = config.listed().iter().map(|listed| listed.proof).collect();
    assert_eq!(kinds, [ProofKind::Passkey, ProofKind::Oidc]);
    let mut urgent = statement();
    (urgent.action, urgent.reason) = (ProofAction::BreakGlass, Some("shop is down".into()));
    let urgent = by_passkey(&passkey, &urgent).to_text().unwrap();
    assert_eq!(verify(&config, &claim(), &urgent, now()).unwrap().break_glass.as_deref(), Some("shop is down"));
}

#[test]
fn an_assertion_for_anything_else_is_refused() {
    let passkey = Authenticator::new(HOST);
    let config = listing(&passkey);
    let other = |change: &dyn Fn(&mut Statement)| {
        let mut other = statement();
        change(&mut other);
        SignedProof { time: now(), break_glass: None, ..by_passkey(&passkey, &other) }
    };
    let seen = by_passkey(&passkey, &statement());
    for (name, proof) in [
        ("another plan's hash", other(&|it| it.plan_sha256 = Some(hash("ac")))),
        ("another incident", other(&|it| it.incident = Some("other".into()))),
        ("another tenant", other(&|it| it.tenant = TenantId::new("other").unwrap())),
        ("another action", other(&|it| it.action = ProofAction::Undo)),
        ("another time", other(&|it| it.time = now().minus(Duration::from_secs(1)))),
        ("made break-glass on the way", SignedProof { break_glass: Some("urgent".into()), ..seen.clone() }),
        ("repeated with a new time", SignedProof { time: now().plus(Duration::from_secs(1)), ..seen.clone() }),
        ("repeated too late", SignedProof { time: now().minus(Duration::from_secs(601)), ..seen.clone() }),
        ("two proofs", SignedProof { id_token: Some("ey.a.b".into()), ..seen.clone() }),
        ("a signature, too", SignedProof { signature: "-----BEGIN".into(), ..seen.clone() }),
        ("none at all", proof(now())),
    ] {
        assert_eq!(refusal(&config, &proof).0, RefusalCode::InvalidProof, "{name}");
    }
    let login = SignedProof { passkey: Some(passkey.assert("bG9naW4")), ..proof(now()) };
    assert_eq!(refusal(&config, &login).0, RefusalCode::InvalidProof, "an assertion of a login");
}

#[test]
fn passkeys_that_are_not_listed_or_of_other_pages_are_refused() {
    let listed = Authenticator::new(HOST);
    let config = listing(&listed);
    let refused = |passkey: &Authenticator| refusal(&config, &by_passkey(passkey, &statement()));
    let other = Authenticator::new(HOST);
    assert_eq!(refused(&other).0, RefusalCode::InvalidProof, "the listed id, another key");
    let mut unknown = by_passkey(&listed, &statement());
    unknown.passkey.as_mut().unwrap().id = "b3RoZXI".into();
    assert_eq!(refusal(&config, &unknown).0, RefusalCode::NotAnApprover);
    let mut changed = listed;
    changed.origin = "https://wardroom.example.evil".into();
    assert!(refused(&changed).1.contains("page"), "a page of another origin");
    (changed.origin, changed.flags) = (format!("https://{HOST}"), 0b001);
    assert!(refused(&changed).1.contains("not verified"), "the person was not verified");
}

#[test]
fn a_provider_proves_for_whom_it_has_authenticated_the_person() {
    let (issuer, passkey) = (TestIssuer::new("k1"), Authenticator::new(HOST));
    let config = with_keys(listing(&passkey), &issuer);
    let proof = by_id_token(&issuer, &claims(&statement())).to_text().unwrap();
    let proven = verify(&config, &claim(), &proof, now()).unwrap();
    assert_eq!((proven.principal.as_str(), proven.kind), ("alice", ProofKind::Oidc));
    assert!(config.is_approver(&TenantId::main(), &proven.principal, proven.key.as_deref()));
    assert_eq!(kind_of(proven.key.as_deref()), ProofKind::Oidc);
}

#[test]
fn forged_and_repeated_id_tokens_are_refused() {
    let (issuer, passkey) = (TestIssuer::new("k1"), Authenticator::new(HOST));
    let config = with_keys(listing(&passkey), &issuer);
    let mut other_plan = statement();
    other_plan.plan_sha256 = Some(hash("ac"));
    let seconds = now().seconds_f64();
    for (claim, value, code) in [
        ("nonce", json!("forged"), RefusalCode::InvalidProof),
        ("nonce", json!(other_plan.challenge().unwrap()), RefusalCode::InvalidProof),
        ("nonce", Value::Null, RefusalCode::InvalidProof),
        ("aud", json!("wardroom"), RefusalCode::InvalidProof),
        ("iss", json!("https://evil.example"), RefusalCode::InvalidProof),
        ("exp", json!(seconds - 61.0), RefusalCode::InvalidProof),
        ("auth_time", json!(seconds - 100.0), RefusalCode::InvalidProof),
        ("auth_time", Value::Null, RefusalCode::InvalidProof),
        ("sub", json!("0002"), RefusalCode::NotAnApprover),
    ] {
        let mut claims = claims(&statement());
        claims[claim] = value.clone();
        assert_eq!(refusal(&config, &by_id_token(&issuer, &claims)).0, code, "{claim} = {value}");
    }
    let forged = by_id_token(&TestIssuer::new("k1"), &claims(&statement()));
    assert_eq!(refusal(&config, &forged).0, RefusalCode::InvalidProof, "another key of the same id");
    let later = SignedProof { time: now().plus(Duration::from_secs(1)), ..by_id_token(&issuer, &claims(&statement())) };
    assert_eq!(refusal(&config, &later).0, RefusalCode::InvalidProof, "repeated with a new time");
    let without = listing(&passkey);
    let valid = by_id_token(&issuer, &claims(&statement()));
    assert_eq!(refusal(&without, &valid).0, RefusalCode::NotAnApprover, "no keys of a configured issuer");
}

/// An answer that was changed in any bit, or written otherwise, proves nothing.
#[test]
fn an_assertion_has_one_text() {
    let passkey = Authenticator::new(HOST);
    let config = listing(&passkey);
    let valid = by_passkey(&passkey, &statement());
    let is_accepted = |proof: &SignedProof| verify(&config, &claim(), &proof.to_text().unwrap(), now()).is_ok();
    assert!(is_accepted(&valid));
    let assertion = valid.passkey.clone().unwrap();
    let parts: [fn(&mut PasskeyAssertion) -> &mut String; 4] =
        [|it| &mut it.id, |it| &mut it.client_data, |it| &mut it.authenticator_data, |it| &mut it.signature];
    for part in parts {
        let text = part(&mut assertion.clone()).clone();
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        let of_bits = changed_bits(&bytes).map(|changed| URL_SAFE_NO_PAD.encode(changed));
        let otherwise =
            [format!("{text}="), format!("{text}=="), format!(" {text}"), format!("{text}\n"), text.repeat(2)];
        for changed in of_bits.chain(changed_characters(&text)).chain(otherwise) {
            let mut changed_assertion = assertion.clone();
            part(&mut changed_assertion).clone_from(&changed);
            let proof = SignedProof { passkey: Some(changed_assertion), ..valid.clone() };
            assert!(!is_accepted(&proof), "{text} was taken as {changed}");
        }
    }
    let text = valid.to_text().unwrap();
    for (known, twice) in [
        (r#""id":"#, r#""id":"b3RoZXI","id":"#),
        (r#""signature":"#, r#""signature":"","signature":"#),
        (r#""passkey":"#, r#""passkey":null,"passkey":"#),
    ] {
        let changed = text.replacen(known, twice, 1);
        assert_ne!(changed, text);
        assert_eq!(verify(&config, &claim(), &changed, now()).unwrap_err().0, RefusalCode::InvalidProof, "{twice}");
    }
}

#[test]
fn an_id_token_has_one_text() {
    let (issuer, passkey) = (TestIssuer::new("k1"), Authenticator::new(HOST));
    let config = with_keys(listing(&passkey), &issuer);
    let valid = by_id_token(&issuer, &claims(&statement()));
    let is_accepted = |token: &str| {
        let proof = SignedProof { id_token: Some(token.to_owned()), ..valid.clone() };
        verify(&config, &claim(), &proof.to_text().unwrap(), now()).is_ok()
    };
    let token = valid.id_token.clone().unwrap();
    assert!(is_accepted(&token));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let of_bits = changed_bits(&bytes).map(|changed| format!("{signed}.{}", URL_SAFE_NO_PAD.encode(changed)));
    let of_claims = changed_characters(signed).into_iter().map(|changed| format!("{changed}.{signature}"));
    let of_signature = changed_characters(signature).into_iter().map(|changed| format!("{signed}.{changed}"));
    let otherwise = [
        format!("{token}="),
        format!("{token}=="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{token}."),
        format!("{token}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
    ];
    for changed in of_bits.chain(of_claims).chain(of_signature).chain(otherwise) {
        assert!(!is_accepted(&changed), "{token} was taken as {changed}");
    }
}

#[test]
fn lists_that_are_unclear_are_refused_with_the_line() {
    use crate::config::browser_approvers::{parse_accounts, parse_passkeys};
    let passkey = Authenticator::new(HOST);
    let (id, key) = (passkey.id(), passkey.public_key());
    assert_eq!(parse_passkeys(&format!("\nalice {id} {key}")).unwrap().len(), 1);
    for wrong in [format!("alice {id}"), format!("al/ice {id} {key}"), format!("alice {id} {id}")] {
        assert!(parse_passkeys(&wrong).unwrap_err().starts_with("line 1: "), "{wrong}");
    }
    assert_eq!(parse_accounts(&format!("alice {ISSUER} 0001 of corp")).unwrap()[0].subject, "0001");
    for wrong in ["alice", "alice http://login.example 1", "alice login.example 1"] {
        assert!(parse_accounts(wrong).unwrap_err().starts_with("line 1: "), "{wrong}");
    }
}
