//! The messages between the server and a query worker, on a stream socket.
//!
//! ```text
//! server ─► QUERY length length, request as JSON, unflushed rows     CANCEL
//! worker ─► ACCEPTED    RESULT is_reusable length, table    FAILURE is_reusable length, failure as JSON
//! ```
//!
//! A worker answers each query with `ACCEPTED`, once it has read it, and then with one result or failure. `CANCEL`
//! makes a running query end early; without one it has no effect. Both sides are the same build, so there is no
//! version. The server trusts no length: a worker runs what a caller wrote.

use std::io::{Error, ErrorKind, Result};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wardroom_domain::{TenantId, Timestamp};
use wardroom_lake::{NAMED_QUERIES, OutputFormat, UnflushedRows, names_in_queries};

use crate::error::FailureKind;

const QUERY: u8 = 1;
const CANCEL: u8 = 2;
const ACCEPTED: u8 = 3;
const RESULT: u8 = 4;
const FAILURE: u8 = 5;

/// Maximum length of a failure that the server reads, in bytes.
const MAX_FAILURE_BYTES: u64 = 64 << 10;
/// Memory that is taken before the bytes of a message arrive.
const MAX_RESERVED_BYTES: u64 = 1 << 20;
/// Name of the table that a log search reads.
const LOGS_TABLE: &str = "silver.logs";

/// A query over the tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Query {
    /// SQL text.
    Sql(String),
    /// A query with a name.
    Named {
        /// Its name.
        name: String,
        /// Its parameters.
        parameters: QueryParameters,
    },
    /// A search of log lines.
    Logs {
        /// The conditions.
        filter: String,
        /// Start of the time range, inclusive, in nanoseconds since the epoch.
        start_nanos: i64,
        /// End of the time range, exclusive, in nanoseconds since the epoch.
        end_nanos: i64,
        /// Maximum number of lines.
        limit: u32,
    },
}

/// Parameters of a named query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryParameters {
    /// Start of the time range, inclusive, in nanoseconds since the epoch.
    pub start_nanos: i64,
    /// End of the time range, exclusive, in nanoseconds since the epoch.
    pub end_nanos: i64,
    /// Limits the result to one service.
    pub service: Option<String>,
    /// Trace id, for `trace`.
    pub trace: Option<String>,
    /// Services with a higher share of failed requests are returned, 0 to 1.
    #[serde(with = "bits")]
    pub error_rate: f64,
    /// Services with a higher 99th percentile of the duration are returned, in ms.
    #[serde(with = "bits")]
    pub p99_ms: f64,
    /// Maximum number of rows.
    pub limit: u32,
}

impl From<QueryParameters> for wardroom_lake::QueryParameters {
    fn from(parameters: QueryParameters) -> Self {
        let QueryParameters { start_nanos, end_nanos, service, trace, error_rate, p99_ms, limit } = parameters;
        let (start, end) = (Timestamp::from_nanos(start_nanos), Timestamp::from_nanos(end_nanos));
        Self { start, end, service, trace, error_rate, p99_ms, limit }
    }
}

impl Query {
    /// Returns whether the query may read a table, by its name with layer. A table can only be read by its name.
    pub(crate) fn may_read(&self) -> impl Fn(&str) -> bool {
        let text = match self {
            Self::Sql(text) => Some(text.to_lowercase()),
            Self::Named { name, .. } => {
                NAMED_QUERIES.iter().find(|named| named.name == name).map(|named| named.sql.to_lowercase())
            }
            Self::Logs { .. } => None,
        };
        let is_search = matches!(self, Self::Logs { .. });
        move |table| match &text {
            Some(text) => names_in_queries(table).any(|name| text.contains(name)),
            None => is_search && table == LOGS_TABLE,
        }
    }
}

/// A query with all that its worker needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) tenant: TenantId,
    pub(crate) query: Query,
    #[serde(with = "FormatName")]
    pub(crate) format: OutputFormat,
    /// The W3C trace context of who asks.
    pub(crate) traceparent: Option<String>,
    /// Rows that are not in the tables yet.
    pub(crate) unflushed: Vec<UnflushedRows>,
}

/// What is written before the rows of a request.
#[derive(Debug, Serialize, Deserialize)]
struct Header<R> {
    request: R,
    /// Length of the rows of each part of `unflushed`, in bytes.
    lengths: Vec<u64>,
}

/// Numbers of any value; JSON has no infinities.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

/// Spelling of formats.
#[derive(Serialize, Deserialize)]
#[serde(remote = "OutputFormat")]
enum FormatName {
    Pretty,
    Json,
    Csv,
    Arrow,
}

/// A failure of a query.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) detail: String,
}

/// What a worker receives.
#[derive(Debug)]
pub(crate) enum Message {
    Query(Box<Request>),
    Cancel,
}

/// What a worker answers, without the bytes of a result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    /// A result of this length follows.
    Result {
        is_reusable: bool,
        bytes: u64,
    },
    Failure {
        is_reusable: bool,
        failure: Failure,
    },
}

pub(crate) async fn write_request(to: &mut (impl AsyncWrite + Unpin), request: &Request) -> Result<()> {
    let lengths = request.unflushed.iter().map(|part| part.rows.len() as u64).collect();
    let header = serde_json::to_vec(&Header { request, lengths })?;
    to.write_u8(QUERY).await?;
    to.write_u64_le(header.len() as u64).await?;
    to.write_all(&header).await?;
    for part in &request.unflushed {
        to.write_all(&part.rows).await?;
    }
    to.flush().await
}

pub(crate) async fn write_cancel(to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    to.write_u8(CANCEL).await?;
    to.flush().await
}

/// Reads the next message; returns `None` once the server has closed the socket.
pub(crate) async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Message>> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    match kind {
        CANCEL => Ok(Some(Message::Cancel)),
        QUERY => {
            let length = from.read_u64_le().await?;
            let Header::<Request> { mut request, lengths } = serde_json::from_slice(&read_bytes(from, length).await?)?;
            for (part, length) in request.unflushed.iter_mut().zip(lengths) {
                part.rows = read_bytes(from, length).await?;
            }
            Ok(Some(Message::Query(Box::new(request))))
        }
        other => Err(Error::new(ErrorKind::InvalidData, format!("unknown message {other}"))),
    }
}

pub(crate) async fn write_accepted(to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    to.write_u8(ACCEPTED).await?;
    to.flush().await
}

/// Writes the result or failure of a query, and whether the worker runs further queries.
pub(crate) async fn write_outcome(
    to: &mut (impl AsyncWrite + Unpin),
    outcome: &std::result::Result<Vec<u8>, Failure>,
    is_reusable: bool,
) -> Result<()> {
    let failure = outcome.as_ref().err().map(serde_json::to_vec).transpose()?;
    let (kind, bytes) = match (outcome, &failure) {
        (Ok(table), _) => (RESULT, table),
        (Err(_), Some(failure)) => (FAILURE, failure),
        (Err(_), None) => return Err(Error::other("a failure has no text")),
    };
    to.write_u8(kind).await?;
    to.write_u8(is_reusable.into()).await?;
    to.write_u64_le(bytes.len() as u64).await?;
    to.write_all(bytes).await?;
    to.flush().await
}

/// Reads an answer; the bytes of a result are left to [`read_bytes`].
pub(crate) async fn read_answer(from: &mut (impl AsyncRead + Unpin)) -> Result<Answer> {
    let kind = from.read_u8().await?;
    if kind == ACCEPTED {
        return Ok(Answer::Accepted);
    }
    let is_reusable = from.read_u8().await? != 0;
    let bytes = from.read_u64_le().await?;
    match kind {
        RESULT => Ok(Answer::Result { is_reusable, bytes }),
        FAILURE if bytes <= MAX_FAILURE_BYTES => {
            let failure = serde_json::from_slice(&read_bytes(from, bytes).await?)?;
            Ok(Answer::Failure { is_reusable, failure })
        }
        other => Err(Error::new(ErrorKind::InvalidData, format!("unexpected answer {other} of {bytes} bytes"))),
    }
}

/// Reads this number of bytes. Memory is taken as they arrive.
pub(crate) async fn read_bytes(from: &mut (impl AsyncRead + Unpin), length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(MAX_RESERVED_BYTES) as usize);
    from.take(length).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: Query) -> Request {
        let rows = UnflushedRows { table: "silver.logs".into(), version: 3, day: 20_000, rows: b"rows".to_vec() };
        Request {
            tenant: TenantId::main(),
            query,
            format: OutputFormat::Csv,
            traceparent: None,
            unflushed: vec![rows.clone(), UnflushedRows { rows: Vec::new(), ..rows }],
        }
    }

    #[tokio::test]
    async fn requests_arrive_with_their_rows() {
        let parameters = QueryParameters {
            start_nanos: i64::MIN,
            end_nanos: i64::MAX,
            service: Some("web".into()),
            trace: None,
            error_rate: 0.05,
            p99_ms: f64::INFINITY,
            limit: 100,
        };
        let logs = Query::Logs { filter: "\"a\"".into(), start_nanos: i64::MIN, end_nanos: i64::MAX, limit: 1 };
        let named = Query::Named { name: "detect_anomalies".into(), parameters };
        for query in [Query::Sql("SELECT 1".into()), named, logs] {
            let (mut bytes, sent) = (Vec::new(), request(query));
            write_request(&mut bytes, &sent).await.unwrap();
            write_cancel(&mut bytes).await.unwrap();
            let mut from = bytes.as_slice();
            let Some(Message::Query(found)) = read_message(&mut from).await.unwrap() else { panic!("no query") };
            assert_eq!((found.query, found.format, found.unflushed), (sent.query, sent.format, sent.unflushed));
            assert!(matches!(read_message(&mut from).await, Ok(Some(Message::Cancel))));
            assert!(matches!(read_message(&mut from).await, Ok(None)));
            for cut in [1, 5, bytes.len() - 3] {
                assert!(read_message(&mut &bytes[..cut]).await.is_err(), "{cut}");
            }
        }
        assert!(read_message(&mut [9].as_slice()).await.is_err());
    }

    #[tokio::test]
    async fn answers_arrive_and_absurd_ones_are_refused() {
        let mut bytes = Vec::new();
        write_accepted(&mut bytes).await.unwrap();
        write_outcome(&mut bytes, &Ok(b"table".to_vec()), true).await.unwrap();
        let failure = Failure { kind: FailureKind::Timeout, detail: "stopped".into() };
        write_outcome(&mut bytes, &Err(failure), false).await.unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read_answer(&mut from).await.unwrap(), Answer::Accepted);
        assert_eq!(read_answer(&mut from).await.unwrap(), Answer::Result { is_reusable: true, bytes: 5 });
        assert_eq!(read_bytes(&mut from, 5).await.unwrap(), b"table");
        let failure = Failure { kind: FailureKind::Timeout, detail: "stopped".into() };
        assert_eq!(read_answer(&mut from).await.unwrap(), Answer::Failure { is_reusable: false, failure });
        let long = [&[FAILURE, 1][..], &u64::MAX.to_le_bytes()].concat();
        assert!(read_answer(&mut long.as_slice()).await.is_err());
        assert!(read_answer(&mut [7, 1, 0, 0, 0, 0, 0, 0, 0, 0].as_slice()).await.is_err());
        assert!(read_bytes(&mut b"ab".as_slice(), u64::MAX).await.is_err());
    }

    #[test]
    fn tables_are_found_in_any_spelling() {
        for (text, table, expected) in [
            ("SELECT * FROM Logs", "silver.logs", true),
            ("SELECT * FROM \"log_templates\"", "silver.log_templates", true),
            ("SELECT * FROM silver . spans", "silver.spans", true),
            ("SELECT * FROM metrics", "silver.logs", false),
            ("SELECT * FROM Deployments", "silver.events", true),
        ] {
            assert_eq!(Query::Sql(text.into()).may_read()(table), expected, "{text}");
        }
        let logs = Query::Logs { filter: "spans".into(), start_nanos: 0, end_nanos: 0, limit: 1 };
        assert!(logs.may_read()("silver.logs") && !logs.may_read()("silver.spans"));
        let named = |name: &str| Query::Named {
            name: name.into(),
            parameters: QueryParameters {
                start_nanos: 0,
                end_nanos: 0,
                service: None,
                trace: None,
                error_rate: 0.0,
                p99_ms: 0.0,
                limit: 1,
            },
        };
        assert!(named("trace").may_read()("silver.spans") && !named("unknown").may_read()("silver.spans"));
    }
}
