//! Users, sessions and passkeys.

use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};
use wardroom_store::{EndedSessions, NewToken, PasskeyRow, SessionRow, Store, UserChange, UserRow};

use crate::entry;

fn alice() -> Principal {
    Principal::new("alice").unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn user() -> UserRow {
    UserRow {
        tenant: TenantId::main(),
        principal: alice(),
        role: "responder".into(),
        password: None,
        created_at: at(1),
        disabled_at: None,
    }
}

fn session(id: &str, method: &str, credential: Option<&str>) -> SessionRow {
    SessionRow {
        id: id.into(),
        sha256: format!("hash of {id}"),
        previous: None,
        csrf_token: "csrf".into(),
        tenant: TenantId::main(),
        principal: alice(),
        method: method.into(),
        scopes: "incidents:read".into(),
        credential: credential.map(str::to_owned),
        created_at: at(1),
        rotated_at: at(1),
        used_at: at(1),
        ends_at: at(100),
    }
}

pub(crate) async fn users_are_created_once_and_changed(store: Store) {
    let (main, other) = (TenantId::main(), TenantId::new("other").unwrap());
    assert!(store.create_user(&user(), &entry("u")).await.unwrap());
    assert!(!store.create_user(&user(), &entry("u")).await.unwrap(), "there is one");
    let entries = store.verify_audit().await.unwrap().entries;
    assert_eq!(entries, 1, "what changed nothing has no entry");
    let change = |change: UserChange, second: i64| {
        let (store, main) = (store.clone(), main.clone());
        async move { store.change_user(&main, &alice(), &change, at(second), &entry("u")).await.unwrap() }
    };
    assert!(change(UserChange { role: Some("admin".into()), ..UserChange::default() }, 2).await);
    assert!(change(UserChange { password: Some("hash".into()), ..UserChange::default() }, 3).await);
    assert!(change(UserChange { enabled: Some(false), ..UserChange::default() }, 4).await);
    assert!(change(UserChange { enabled: Some(false), ..UserChange::default() }, 5).await);
    let stored = store.user(&main, &alice()).await.unwrap().unwrap();
    assert_eq!((stored.role.as_str(), stored.password.as_deref()), ("admin", Some("hash")));
    assert_eq!(stored.disabled_at, Some(at(4)), "the first time counts");
    assert!(change(UserChange { enabled: Some(true), ..UserChange::default() }, 6).await);
    assert_eq!(store.users(&main).await.unwrap()[0].disabled_at, None);
    assert!(store.users(&other).await.unwrap().is_empty() && store.user(&other, &alice()).await.unwrap().is_none());
    let unknown = store.change_user(&other, &alice(), &UserChange::default(), at(7), &entry("u")).await;
    assert!(!unknown.unwrap(), "another tenant's");
}

pub(crate) async fn a_session_has_what_its_user_and_token_are_now(store: Store) {
    let identity = Identity { tenant: TenantId::main(), principal: alice(), role: AccessRole::Viewer };
    let token = NewToken::new("a".repeat(64), identity, Some(at(90)));
    store.create_token(&token, at(1), &entry("t")).await.unwrap();
    store.create_user(&user(), &entry("u")).await.unwrap();
    store.create_session(&session("s1", "passkey", None), &entry("s")).await.unwrap();
    store.create_session(&session("s2", "token", Some(&token.id)), &entry("s")).await.unwrap();
    let states = async || {
        let mut states = store.sessions(at(2)).await.unwrap();
        states.sort_by(|a, b| a.session.id.cmp(&b.session.id));
        states
    };
    let read = states().await;
    assert_eq!(read[0].session, session("s1", "passkey", None));
    assert_eq!((read[0].user_role.as_deref(), read[0].token_role), (Some("responder"), None));
    assert_eq!((read[1].token_role, read[1].token_ends_at), (Some(AccessRole::Viewer), Some(at(90))));
    store.revoke_token(&token.id, at(3), &entry("t")).await.unwrap();
    let change = UserChange { enabled: Some(false), role: Some("viewer".into()), ..UserChange::default() };
    store.change_user(&TenantId::main(), &alice(), &change, at(3), &entry("u")).await.unwrap();
    let read = states().await;
    assert!(read[0].is_disabled && read[0].user_role.as_deref() == Some("viewer") && read[1].token_role.is_none());
}

pub(crate) async fn sessions_are_rotated_used_and_ended(store: Store) {
    let main = TenantId::main();
    for id in ["s1", "s2", "s3"] {
        store.create_session(&session(id, "passkey", None), &entry("s")).await.unwrap();
    }
    let rotated = SessionRow {
        sha256: "new".into(),
        previous: Some(("hash of s1".into(), at(40))),
        rotated_at: at(10),
        ..session("s1", "passkey", None)
    };
    store.rotate_session(&rotated).await.unwrap();
    let older = SessionRow { sha256: "older".into(), rotated_at: at(9), ..rotated.clone() };
    store.rotate_session(&older).await.unwrap();
    store.note_sessions_used(&[("s1".into(), at(20)), ("s1".into(), at(19)), ("x".into(), at(1))]).await.unwrap();
    let find = async |id: &str| {
        let all = store.sessions(at(20)).await.unwrap();
        all.into_iter().find(|state| state.session.id == id).map(|state| state.session)
    };
    assert_eq!(find("s1").await, Some(SessionRow { used_at: at(20), ..rotated }));
    let end = async |which: EndedSessions, tenant: &TenantId| {
        store.end_sessions(tenant, &which, at(21), &entry("s")).await.unwrap()
    };
    assert_eq!(end(EndedSessions::One("s1".into()), &TenantId::new("other").unwrap()).await, 0);
    assert_eq!(end(EndedSessions::One("s1".into()), &main).await, 1);
    assert_eq!(end(EndedSessions::One("s1".into()), &main).await, 0, "it has ended");
    assert_eq!(end(EndedSessions::OfPrincipal(alice()), &main).await, 2);
    assert_eq!(store.verify_audit().await.unwrap().entries, 5, "three logins and two ends");
    store.create_session(&session("s4", "passkey", None), &entry("s")).await.unwrap();
    assert!(find("s4").await.is_some());
    assert!(store.sessions(at(100)).await.unwrap().is_empty(), "its time is over");
    store.delete_sessions_before(at(101)).await.unwrap();
    assert!(store.sessions(at(2)).await.unwrap().is_empty());
}

pub(crate) async fn a_passkey_counts_on_once_for_each_use(store: Store) {
    let main = TenantId::main();
    let passkey = PasskeyRow {
        id: "id".into(),
        tenant: main.clone(),
        principal: alice(),
        public_key: "key".into(),
        name: "laptop".into(),
        sign_count: 7,
        created_at: at(1),
        used_at: None,
    };
    assert!(store.create_passkey(&passkey, &entry("p")).await.unwrap());
    assert!(!store.create_passkey(&passkey, &entry("p")).await.unwrap(), "an id is used once");
    assert_eq!(store.passkey("id").await.unwrap(), Some(passkey.clone()));
    assert!(store.note_passkey_used("id", (7, 8), at(2)).await.unwrap());
    assert!(!store.note_passkey_used("id", (7, 8), at(2)).await.unwrap(), "the same answer at the same time");
    let stored = store.passkeys(&main, &alice()).await.unwrap();
    assert_eq!(stored, [PasskeyRow { sign_count: 8, used_at: Some(at(2)), ..passkey }]);
    let bob = Principal::new("bob").unwrap();
    assert!(!store.delete_passkey((&main, &bob), "id", &entry("p")).await.unwrap(), "another person's");
    assert!(store.delete_passkey((&main, &alice()), "id", &entry("p")).await.unwrap());
    assert_eq!(store.passkey("id").await.unwrap(), None);
}
