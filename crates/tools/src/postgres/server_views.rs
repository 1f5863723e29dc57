//! Read-only diagnostics: a table of statements over the server's own views.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_postgres::Client;
use wardroom_respond::{Operation, read_operation};

use super::literals::without_literals;

/// Arguments of a diagnosis that returns a list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListArguments {
    /// Maximum number of rows. Default 50.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 200))]
    pub(super) limit: i64,
}

const fn default_limit() -> i64 {
    50
}

/// One diagnosis: its statement takes the maximum number of rows as `$1`.
struct Diagnosis {
    name: &'static str,
    summary: &'static str,
    sql: &'static str,
}

const DIAGNOSES: &[Diagnosis] = &[
    Diagnosis {
        name: "activity",
        summary: "client connections that do something or hold a transaction, the oldest transaction first",
        sql: "SELECT pid, usename AS user, datname AS database, application_name AS application, host(client_addr) AS client,
                     state, wait_event_type, wait_event,
                     extract(epoch FROM now() - xact_start)::bigint AS transaction_seconds,
                     extract(epoch FROM now() - query_start)::bigint AS statement_seconds, query
              FROM pg_stat_activity
              WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()
              ORDER BY xact_start NULLS LAST, query_start LIMIT $1",
    },
    Diagnosis {
        name: "blocking",
        summary: "connections that wait for a lock, with those that hold it",
        sql: "SELECT a.pid, pg_blocking_pids(a.pid) AS blocked_by, a.usename AS user, a.application_name AS application,
                     a.wait_event, extract(epoch FROM now() - a.query_start)::bigint AS statement_seconds, a.query
              FROM pg_stat_activity a
              WHERE a.wait_event_type = 'Lock' ORDER BY a.query_start LIMIT $1",
    },
    Diagnosis {
        name: "connections",
        summary: "number of connections by database, user and state, and the server's limits",
        sql: "SELECT datname AS database, usename AS user, state, count(*) AS connections,
                     current_setting('max_connections')::int AS max_connections,
                     current_setting('superuser_reserved_connections')::int AS reserved_connections
              FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT $1",
    },
    Diagnosis {
        name: "replication",
        summary: "replicas, and how many bytes they are behind",
        sql: "SELECT application_name AS replica, host(client_addr) AS client, state, sync_state,
                     pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                     ELSE pg_current_wal_lsn() END, replay_lsn)::bigint AS behind_bytes
              FROM pg_stat_replication ORDER BY 5 DESC NULLS FIRST LIMIT $1",
    },
    Diagnosis {
        name: "tables",
        summary: "tables of the connected database by dead rows, with their last vacuum",
        sql: "SELECT schemaname AS schema, relname AS table, n_live_tup AS live_rows, n_dead_tup AS dead_rows,
                     seq_scan AS sequential_scans, last_autovacuum, last_autoanalyze
              FROM pg_stat_user_tables ORDER BY n_dead_tup DESC LIMIT $1",
    },
    Diagnosis {
        name: "databases",
        summary: "size, age of the oldest transaction id, deadlocks and conflicts of each database",
        sql: "SELECT d.datname AS database, CASE WHEN has_database_privilege(d.oid, 'CONNECT')
                     OR pg_has_role('pg_read_all_stats', 'MEMBER') THEN pg_database_size(d.oid) END AS bytes,
                     age(d.datfrozenxid) AS transaction_id_age, s.deadlocks, s.conflicts, s.temp_bytes
              FROM pg_database d LEFT JOIN pg_stat_database s ON s.datid = d.oid
              WHERE d.datallowconn ORDER BY 2 DESC NULLS LAST LIMIT $1",
    },
];

/// Returns the operations of the diagnoses.
pub(super) fn operations() -> impl Iterator<Item = Operation> {
    DIAGNOSES.iter().map(|diagnosis| read_operation::<ListArguments>(diagnosis.name, diagnosis.summary))
}

/// Whether an operation is a diagnosis.
pub(super) fn exists(name: &str) -> bool {
    DIAGNOSES.iter().any(|diagnosis| diagnosis.name == name)
}

/// Maximum duration of a diagnosis with its connection.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(15);

/// Runs a diagnosis; `None` if there is none of this name.
pub(super) async fn run(client: &Client, name: &str, limit: i64) -> Result<Option<Value>, tokio_postgres::Error> {
    let Some(diagnosis) = DIAGNOSES.iter().find(|diagnosis| diagnosis.name == name) else { return Ok(None) };
    // The server makes the JSON: one statement form whatever the columns are.
    let sql = format!("SELECT coalesce(json_agg(r), '[]')::text FROM ({}) r", diagnosis.sql);
    let text: String = client.query_one(&sql, &[&limit]).await?.get(0);
    let mut rows: Vec<Map<String, Value>> = serde_json::from_str(&text).unwrap_or_default();
    for row in &mut rows {
        if let Some(Value::String(statement)) = row.get_mut("query") {
            *statement = without_literals(statement);
        }
    }
    Ok(Some(serde_json::json!({ "rows": rows })))
}
