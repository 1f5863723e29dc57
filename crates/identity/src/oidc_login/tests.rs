use serde_json::{Value, json};
use wardroom_testing::TestIssuer;

use super::*;

fn keys_of(issuer: &TestIssuer) -> JwkSet {
    JwkSet::parse(&issuer.jwk_set()).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn provider() -> Provider {
    serde_json::from_value(json!({
        "name": "corp", "issuer": "https://login.example", "client-id": "wardroom",
        "principal-claim": "preferred_username", "roles": { "sre": "responder", "leads": "admin", "all": "viewer" },
    }))
    .unwrap()
}

fn claims(login: &PendingLogin) -> Value {
    json!({
        "iss": "https://login.example", "aud": "wardroom", "sub": "0001", "preferred_username": "alice",
        "exp": 1000, "iat": 900, "nonce": login.nonce, "groups": ["sre", "all", "football"],
    })
}

fn finish(login: &PendingLogin, issuer: &TestIssuer, claims: &Value) -> Result<LoggedIn, LoginError> {
    login.finish(&issuer.sign(claims), &provider(), &keys_of(issuer), &Roles::default(), at(950))
}

#[test]
fn a_person_has_the_roles_of_their_groups() {
    let (issuer, login) = (TestIssuer::new("k1"), PendingLogin::begin("corp", "/incidents/INC-1"));
    let person = finish(&login, &issuer, &claims(&login)).unwrap();
    assert_eq!((person.principal.as_str(), person.subject.as_str()), ("alice", "0001"));
    assert_eq!(person.scopes.nearest_role().as_str(), "responder");
    let with_groups = |groups: Value| {
        let mut claims = claims(&login);
        claims["groups"] = groups;
        finish(&login, &issuer, &claims).map(|person| person.scopes.nearest_role().as_str())
    };
    assert_eq!(with_groups(json!(["leads", "sre"])), Ok("admin"));
    assert_eq!(with_groups(json!("all")), Ok("viewer"), "one group as a text");
    for groups in [json!([]), json!(["football"]), Value::Null, json!(7)] {
        assert!(matches!(with_groups(groups.clone()), Err(LoginError::NoRole(_))), "{groups}");
    }
}

#[test]
fn hostile_id_tokens_are_refused_with_the_claim() {
    let (issuer, login) = (TestIssuer::new("k1"), PendingLogin::begin("corp", "/"));
    for (claim, value, named) in [
        ("nonce", json!("another-request"), "nonce"),
        ("nonce", Value::Null, "nonce"),
        ("aud", json!("other-client"), "aud"),
        ("aud", json!(["wardroom", "other-client"]), "azp"),
        ("azp", json!("other-client"), "azp"),
        ("iss", json!("https://login.example/"), "iss"),
        ("exp", json!(890), "exp"),
        ("iat", json!(1100), "iat"),
        ("sub", json!(""), "sub"),
        ("preferred_username", json!("al ice"), "preferred_username"),
        ("preferred_username", json!(7), "preferred_username"),
    ] {
        let mut claims = claims(&login);
        claims[claim] = value.clone();
        let error = finish(&login, &issuer, &claims).unwrap_err().to_string();
        assert!(error.contains(named), "{claim} = {value}: {error}");
    }
    let forged = TestIssuer::new("k1");
    assert!(
        login
            .finish(&forged.sign(&claims(&login)), &provider(), &keys_of(&issuer), &Roles::default(), at(950))
            .is_err()
    );
}

#[test]
fn a_callback_counts_only_in_the_browser_that_began() {
    let login = PendingLogin::begin("corp", "/");
    let cookie = login.to_cookie().unwrap();
    assert_eq!(PendingLogin::from_cookie(&cookie), Some(login.clone()));
    assert!(PendingLogin::from_cookie("x").is_none() && PendingLogin::from_cookie("").is_none());
    assert_eq!(login.check_state("corp", &login.state), Ok(()));
    for (provider, state) in [("corp", ""), ("corp", "x"), ("other", login.state.as_str())] {
        assert_eq!(login.check_state(provider, state), Err(LoginError::OtherBrowser));
    }
    assert_ne!(login.state, PendingLogin::begin("corp", "/").state);
}

#[test]
fn the_authorization_url_has_the_challenge_and_not_the_verifier() {
    let login = PendingLogin::begin("corp", "/");
    let redirect = "https://wardroom.example/auth/oidc/corp/callback";
    let url = login.authorization_url(&provider(), "https://login.example/authorize?realm=x", redirect).unwrap();
    let pairs: Vec<(String, String)> = Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    let get = |name: &str| pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!(
        (get("realm"), get("code_challenge_method"), get("redirect_uri")),
        (Some("x"), Some("S256"), Some(redirect))
    );
    assert_eq!((get("scope"), get("prompt")), (Some("openid profile email"), None));
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, login.verifier.as_bytes()));
    assert!(get("code_challenge") == Some(&challenge) && !url.contains(&login.verifier), "{url}");
    // RFC 7636, appendix B.
    let request = AuthorizationRequest {
        client_id: "c",
        scopes: "",
        redirect,
        state: "s",
        nonce: "n",
        verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        fresh: true,
    };
    let url = request.url("https://login.example/authorize").unwrap();
    assert!(url.contains("code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"), "{url}");
    assert!(url.contains("max_age=0&prompt=login") && url.contains("scope=openid&"), "{url}");
}

#[test]
fn a_login_returns_to_a_page_of_this_server_only() {
    for (path, expected) in [
        ("/incidents/INC-1?x=1", "/incidents/INC-1?x=1"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("", "/"),
    ] {
        assert_eq!(local_path(path), expected, "{path:?}");
    }
}

#[test]
fn who_authenticated_long_ago_has_not_for_this_request() {
    let (issuer, login) = (TestIssuer::new("k1"), PendingLogin::begin("corp", "/"));
    let verify = |auth_time: Value| {
        let mut claims = claims(&login);
        claims["auth_time"] = auth_time;
        let max_age = Some(std::time::Duration::from_secs(120));
        let check =
            IdTokenCheck { issuer: "https://login.example", client_id: "wardroom", nonce: &login.nonce, max_age };
        verify_id_token(&issuer.sign(&claims), &keys_of(&issuer), check, at(950))
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(verify(json!(940)), Ok(()));
    for auth_time in [json!(700), json!(1100), Value::Null] {
        assert!(verify(auth_time.clone()).unwrap_err().contains("auth_time"), "{auth_time}");
    }
}
