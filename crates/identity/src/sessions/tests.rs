use super::*;

const IDLE: Duration = Duration::from_secs(3600);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn record(id: &str, secret: &str, created: i64) -> SessionRecord {
    SessionRecord {
        id: id.to_owned(),
        sha256: sha256_hex(secret.as_bytes()),
        previous: None,
        csrf_token: "csrf".to_owned(),
        tenant: TenantId::main(),
        principal: Principal::new("alice").unwrap(),
        scopes: Scopes::of_words(["incidents:read", "incidents:write", "actions:approve"]),
        method: LoginMethod::Passkey,
        created_at: at(created),
        rotated_at: at(created),
        used_at: at(created),
        ends_at: at(created + 12 * 3600),
    }
}

fn table(sessions: Vec<SessionRecord>) -> SessionTable {
    let table = SessionTable::new(IDLE);
    table.replace(Some(sessions), at(0));
    table
}

#[test]
fn a_session_ends_when_it_is_not_used_and_when_its_time_is_over() {
    let table = table(vec![record("s1", "secret", 0)]);
    let caller = table.authenticate("secret", at(10)).unwrap();
    assert_eq!((caller.identity.principal.as_str(), caller.identity.role.as_str()), ("alice", "responder"));
    assert_eq!(table.authenticate("other", at(10)), Err(SessionEnd::Unknown));
    for hour in 1..12 {
        assert!(table.authenticate("secret", at(hour * 3500)).is_ok(), "used within the hour");
    }
    assert_eq!(table.authenticate("secret", at(12 * 3600)), Err(SessionEnd::Expired), "the absolute end");
    let idle = SessionTable::new(IDLE);
    idle.replace(Some(vec![record("s1", "secret", 0)]), at(0));
    assert_eq!(idle.authenticate("secret", at(3600)), Err(SessionEnd::Expired), "the idle end");
}

#[test]
fn what_was_revoked_elsewhere_ends_with_the_next_read() {
    let table = table(vec![record("s1", "secret", 0)]);
    assert!(table.authenticate("secret", at(10)).is_ok());
    table.replace(Some(Vec::new()), at(11));
    assert_eq!(table.authenticate("secret", at(11)), Err(SessionEnd::Unknown));
    table.replace(None, at(12));
    assert_eq!(table.authenticate("secret", at(12)), Err(SessionEnd::Unavailable));
    assert_eq!(SessionTable::new(IDLE).authenticate("secret", at(0)), Err(SessionEnd::Unavailable), "not read yet");
}

#[test]
fn a_session_made_during_a_read_counts_and_one_revoked_here_ends_at_once() {
    let table = table(Vec::new());
    table.insert(record("s1", "secret", 100), at(101));
    table.replace(Some(Vec::new()), at(101));
    assert!(table.authenticate("secret", at(101)).is_ok(), "the read had begun before");
    table.remove(|session| session.id == "s1");
    assert_eq!(table.authenticate("secret", at(101)), Err(SessionEnd::Unknown));
    table.insert(record("s2", "secret", 101), at(101));
    table.replace(Some(Vec::new()), at(102));
    assert_eq!(table.authenticate("secret", at(102)), Err(SessionEnd::Unknown), "a later read does not have it");
}

#[test]
fn a_replaced_secret_counts_for_half_a_minute_and_is_replaced_once() {
    let table = table(vec![record("s1", "secret", 0)]);
    assert!(!table.authenticate("secret", at(899)).unwrap().session.unwrap().needs_rotation);
    assert!(table.authenticate("secret", at(900)).unwrap().session.unwrap().needs_rotation);
    let (new, stored) = table.rotate("s1", at(900)).unwrap();
    assert!(table.rotate("s1", at(900)).is_none(), "a second request at the same time keeps the new secret");
    assert_eq!(stored.sha256, sha256_hex(new.as_bytes()));
    for (secret, seconds, counts) in [("secret", 929, true), ("secret", 930, false)] {
        assert_eq!(table.authenticate(secret, at(seconds)).is_ok(), counts, "{seconds}");
    }
    assert!(!table.authenticate(&new, at(930)).unwrap().session.unwrap().needs_rotation);
    // A read that began before the replacement was stored must not bring the old secret back.
    table.replace(Some(vec![record("s1", "secret", 0)]), at(931));
    assert!(table.authenticate(&new, at(931)).is_ok() && table.authenticate("secret", at(931)).is_err());
}

#[test]
fn a_change_of_the_role_is_in_force_with_the_next_read() {
    let table = table(vec![record("s1", "secret", 0)]);
    let mut changed = record("s1", "secret", 0);
    changed.scopes = Scopes::of_words(["incidents:read"]);
    table.replace(Some(vec![changed]), at(1));
    assert_eq!(table.authenticate("secret", at(1)).unwrap().identity.role.as_str(), "viewer");
}

#[test]
fn a_password_is_for_reading_only() {
    let all: Scopes = Scope::ALL.into_iter().collect();
    assert_eq!(LoginMethod::Password.limit(all).words(), "incidents:read");
    for method in [LoginMethod::Passkey, LoginMethod::Oidc, LoginMethod::Token] {
        assert_eq!(method.limit(all), all);
    }
    assert!(LoginMethod::Password.limit(Scopes::default()).is_empty());
}
