//! One way to run SQL on both databases, SQLite and PostgreSQL.
//!
//! Problem: the store's statements are the same text on both, but sqlx's types are not. Model: a [`Query`] has a text
//! and values of two types, text and integer; it runs on the connections ([`Database`]) or in a transaction
//! ([`Transaction`]). Parameters are written `$1`, which both databases understand, and may be used more than once.
//!
//! A write transaction excludes all others on both: SQLite has one writer by nature, and PostgreSQL's takes an advisory
//! lock first. So "read the last row, then insert the next one" is correct on both, whatever number of processes
//! writes.

use sqlx::postgres::{PgPool, PgRow};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite};

/// Key of the advisory lock that a write transaction holds on PostgreSQL: `wardroom` in ASCII.
const WRITE_LOCK: i64 = 0x7761_7264_726f_6f6d;

/// The connections to a database; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// An open transaction; rolled back when dropped.
#[derive(Debug)]
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// A row of a result.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A value that is bound to a parameter.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
}

/// A statement with its values.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    sql: SqlStr,
    values: Vec<Value>,
    /// Whether the database keeps the prepared statement.
    is_cached: bool,
}

/// Where a query runs.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    Database(&'a Database),
    Transaction(&'a mut Transaction),
}

/// A statement with a fixed text.
pub(crate) fn query(sql: &'static str) -> Query {
    Query { sql: sql.into_sql_str(), values: Vec::new(), is_cached: true }
}

/// A statement whose text was built from constants and parameter numbers only; it is not cached.
pub(crate) fn built_query(sql: String) -> Query {
    Query { sql: AssertSqlSafe(sql).into_sql_str(), values: Vec::new(), is_cached: false }
}

impl Query {
    /// Binds the next parameter.
    #[must_use]
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs the statement and returns the number of rows that it changed.
    pub(crate) async fn execute<'a>(self, target: impl Into<Target<'a>>) -> Result<u64, sqlx::Error> {
        match target.into() {
            Target::Database(Database::Sqlite(pool)) => Ok(self.for_sqlite().execute(pool).await?.rows_affected()),
            Target::Database(Database::Postgres(pool)) => Ok(self.for_postgres().execute(pool).await?.rows_affected()),
            Target::Transaction(Transaction::Sqlite(transaction)) => {
                Ok(self.for_sqlite().execute(&mut **transaction).await?.rows_affected())
            }
            Target::Transaction(Transaction::Postgres(transaction)) => {
                Ok(self.for_postgres().execute(&mut **transaction).await?.rows_affected())
            }
        }
    }

    /// Returns all rows.
    pub(crate) async fn fetch_all<'a>(self, target: impl Into<Target<'a>>) -> Result<Vec<Row>, sqlx::Error> {
        let sqlite = |rows: Vec<SqliteRow>| rows.into_iter().map(Row::Sqlite).collect();
        let postgres = |rows: Vec<PgRow>| rows.into_iter().map(Row::Postgres).collect();
        match target.into() {
            Target::Database(Database::Sqlite(pool)) => self.for_sqlite().fetch_all(pool).await.map(sqlite),
            Target::Database(Database::Postgres(pool)) => self.for_postgres().fetch_all(pool).await.map(postgres),
            Target::Transaction(Transaction::Sqlite(transaction)) => {
                self.for_sqlite().fetch_all(&mut **transaction).await.map(sqlite)
            }
            Target::Transaction(Transaction::Postgres(transaction)) => {
                self.for_postgres().fetch_all(&mut **transaction).await.map(postgres)
            }
        }
    }

    /// Returns the first row, if there is one.
    pub(crate) async fn fetch_optional<'a>(self, target: impl Into<Target<'a>>) -> Result<Option<Row>, sqlx::Error> {
        let sqlite = |row: Option<SqliteRow>| row.map(Row::Sqlite);
        let postgres = |row: Option<PgRow>| row.map(Row::Postgres);
        match target.into() {
            Target::Database(Database::Sqlite(pool)) => self.for_sqlite().fetch_optional(pool).await.map(sqlite),
            Target::Database(Database::Postgres(pool)) => self.for_postgres().fetch_optional(pool).await.map(postgres),
            Target::Transaction(Transaction::Sqlite(transaction)) => {
                self.for_sqlite().fetch_optional(&mut **transaction).await.map(sqlite)
            }
            Target::Transaction(Transaction::Postgres(transaction)) => {
                self.for_postgres().fetch_optional(&mut **transaction).await.map(postgres)
            }
        }
    }

    /// Returns the first row.
    pub(crate) async fn fetch_one<'a>(self, target: impl Into<Target<'a>>) -> Result<Row, sqlx::Error> {
        self.fetch_optional(target).await?.ok_or(sqlx::Error::RowNotFound)
    }

    fn for_sqlite(self) -> sqlx::query::Query<'static, Sqlite, <Sqlite as sqlx::Database>::Arguments> {
        let query = sqlx::query(self.sql).persistent(self.is_cached);
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Text(value) => query.bind(value),
            Value::Integer(value) => query.bind(value),
        })
    }

    fn for_postgres(self) -> sqlx::query::Query<'static, Postgres, <Postgres as sqlx::Database>::Arguments> {
        let query = sqlx::query(self.sql).persistent(self.is_cached);
        self.values.into_iter().fold(query, |query, value| match value {
            // PostgreSQL has no text with a zero character, and telemetry may bring one.
            Value::Text(value) => query.bind(value.map(|text| text.replace('\0', "\u{fffd}"))),
            Value::Integer(value) => query.bind(value),
        })
    }
}

impl Row {
    /// Decodes a column: `String`, `i64`, or an `Option` of them.
    pub(crate) fn get<T>(&self, column: &str) -> Result<T, sqlx::Error>
    where
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

impl Database {
    /// Begins a transaction that excludes all other writers.
    pub(crate) async fn begin_write(&self) -> Result<Transaction, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => Ok(Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)),
            Self::Postgres(pool) => {
                let mut transaction = Transaction::Postgres(pool.begin().await?);
                query("SELECT pg_advisory_xact_lock($1)").bind(WRITE_LOCK).execute(&mut transaction).await?;
                Ok(transaction)
            }
        }
    }

    /// Begins a transaction that sees one state of the database.
    pub(crate) async fn begin_snapshot(&self) -> Result<Transaction, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => Ok(Transaction::Sqlite(pool.begin().await?)),
            Self::Postgres(pool) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Ok(Transaction::Postgres(pool.begin_with(begin).await?))
            }
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}

impl<'a> From<&'a Database> for Target<'a> {
    fn from(database: &'a Database) -> Self {
        Self::Database(database)
    }
}

impl<'a> From<&'a mut Transaction> for Target<'a> {
    fn from(transaction: &'a mut Transaction) -> Self {
        Self::Transaction(transaction)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}
