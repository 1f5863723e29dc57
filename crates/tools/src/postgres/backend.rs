//! One backend (a server process, and with it one connection) and what it does.

use tokio_postgres::Client;

use super::literals::without_literals;

/// What the server shows to a role without `pg_monitor`.
const HIDDEN: &str = "<insufficient privilege>";

/// The row that is read, with texts in UTC. `allowed` says whether this role may signal the backend.
const BACKEND: &str = "
    SELECT a.pid, a.backend_start::text, coalesce(a.xact_start::text, 'none'), coalesce(a.query_start::text, 'none'),
           coalesce(a.state, 'unknown'), coalesce(a.usename::text, ''), coalesce(a.application_name, ''),
           coalesce(host(a.client_addr), 'local'), coalesce(a.datname::text, ''),
           coalesce(to_jsonb(a)->>'query_id', md5(coalesce(a.query, ''))), coalesce(a.query, ''), a.backend_type,
           coalesce(r.rolsuper, false) AND NOT me.rolsuper, a.pid = pg_backend_pid()
    FROM pg_stat_activity a
    LEFT JOIN pg_roles r ON r.oid = a.usesysid
    CROSS JOIN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) me
    WHERE a.pid = $1";

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) started: String,
    pub(super) transaction_started: String,
    pub(super) statement_started: String,
    /// `active`, `idle`, `idle in transaction` and others.
    pub(super) state: String,
    pub(super) user: String,
    pub(super) application: String,
    pub(super) client: String,
    pub(super) database: String,
    /// The server's identifier of the statement's form; a hash of its text if it computes none.
    pub(super) query_id: String,
    statement: String,
    kind: String,
    is_protected: bool,
    is_own: bool,
}

impl Backend {
    /// Reads a backend; `None` if there is none with this process id.
    pub(super) async fn read(client: &Client, pid: i32) -> Result<Option<Self>, tokio_postgres::Error> {
        Ok(client.query_opt(BACKEND, &[&pid]).await?.map(|row| Self {
            pid: row.get(0),
            started: row.get(1),
            transaction_started: row.get(2),
            statement_started: row.get(3),
            state: row.get(4),
            user: row.get(5),
            application: row.get(6),
            client: row.get(7),
            database: row.get(8),
            query_id: row.get(9),
            statement: row.get(10),
            kind: row.get(11),
            is_protected: row.get(12),
            is_own: row.get(13),
        }))
    }

    /// Whether this is the backend that `precondition` describes, whatever it does now. A process id is used again, the
    /// time of the start with it is not.
    pub(super) fn is_that_of(&self, precondition: &str) -> bool {
        precondition.starts_with(&self.identity())
    }

    fn identity(&self) -> String {
        format!("pid={} started={} ", self.pid, self.started)
    }

    /// The precondition of a plan: the backend, its transaction and its statement.
    pub(super) fn fingerprint(&self) -> String {
        format!(
            "{}transaction={} statement={} query={} state={}",
            self.identity(),
            self.transaction_started,
            self.statement_started,
            self.query_id,
            self.state
        )
    }

    /// Says why this backend must not be signalled; `None` if it may be.
    pub(super) fn refusal(&self) -> Option<String> {
        let pid = self.pid;
        if self.is_own {
            return Some(format!("backend {pid} is the connection of this tool"));
        }
        if self.kind != "client backend" {
            let kind = &self.kind;
            return Some(format!("backend {pid} is a {kind}, not a client's connection; the server needs it"));
        }
        if self.is_protected {
            return Some(format!("backend {pid} belongs to a superuser, which pg_signal_backend does not cover"));
        }
        (self.statement == HIDDEN).then(|| {
            format!(
                "this role cannot see what backend {pid} does; GRANT pg_monitor TO it, so that a person can approve"
            )
        })
    }

    /// Says whose connection this is and what it does, on one line, without data.
    pub(super) fn description(&self) -> String {
        let application = if self.application.is_empty() { "unnamed" } else { &self.application };
        let does = match self.state.as_str() {
            "active" => format!("runs since {}", self.statement_started),
            state => format!("is {state} since its last statement at {}", self.statement_started),
        };
        let transaction = match self.transaction_started.as_str() {
            "none" => "no transaction is open".to_owned(),
            started => format!("its transaction is open since {started}"),
        };
        format!(
            "backend {} (user {}, database {}, application {application}, client {}) {does}: {}; {transaction}",
            self.pid,
            self.user,
            self.database,
            self.client,
            without_literals(&self.statement)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Backend {
        let text = str::to_owned;
        Backend {
            pid: 7,
            started: text("2026-11-30 10:00:00+00"),
            transaction_started: text("2026-11-30 10:01:00+00"),
            statement_started: text("2026-11-30 10:02:00+00"),
            state: text("idle in transaction"),
            user: text("checkout"),
            application: String::new(),
            client: text("10.0.0.3"),
            database: text("shop"),
            query_id: text("42"),
            statement: text("UPDATE users SET mail = 'a@x.org'"),
            kind: text("client backend"),
            is_protected: false,
            is_own: false,
        }
    }

    #[test]
    fn what_a_backend_does_is_said_without_data() {
        assert_eq!(
            backend().description(),
            "backend 7 (user checkout, database shop, application unnamed, client 10.0.0.3) is idle in transaction since \
             its last statement at 2026-11-30 10:02:00+00: UPDATE users SET mail = ?; its transaction is open since \
             2026-11-30 10:01:00+00"
        );
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_backend() {
        let planned = backend().fingerprint();
        assert!(backend().is_that_of(&planned));
        let later = Backend { started: "2026-11-30 11:00:00+00".to_owned(), ..backend() };
        assert!(!later.is_that_of(&planned));
        let other_pid = Backend { pid: 77, ..backend() };
        assert!(!other_pid.is_that_of(&planned));
    }

    #[test]
    fn what_the_server_needs_is_not_signalled() {
        let refused = |change: fn(&mut Backend)| {
            let mut backend = backend();
            change(&mut backend);
            backend.refusal()
        };
        assert_eq!(refused(|_| ()), None);
        assert!(refused(|backend| backend.kind = "walsender".to_owned()).unwrap().contains("walsender"));
        assert!(refused(|backend| backend.is_protected = true).unwrap().contains("superuser"));
        assert!(refused(|backend| backend.is_own = true).is_some());
        assert!(refused(|backend| backend.statement = HIDDEN.to_owned()).unwrap().contains("GRANT pg_monitor"));
    }
}
