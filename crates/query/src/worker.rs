//! The worker's side: runs one query at a time until the server closes the socket.
//!
//! Problem: a query that was cancelled or timed out may go on for a while, and would slow down the next one. Model: the
//! worker waits a moment for it to end; if it does not, the worker says so in its answer and ends, and the supervisor
//! starts another one. Guarantee: a worker that is reusable is idle.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncRead;
use tokio::net::UnixStream;
use tracing::Instrument;
use wardroom_domain::Timestamp;
use wardroom_lake::{Config, Lake, LogFilter, QueryEngine, QueryError};
use wardroom_traces::ContinuedTrace;

use crate::error::FailureKind;
use crate::protocol::{Failure, Message, Query, Request, read_message, write_accepted, write_outcome};

/// Time that a query gets to end after it was cancelled or timed out.
const STOP_TIME: Duration = Duration::from_millis(300);
/// Interval between two checks whether it has ended.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What surrounds each query.
pub struct WorkerHooks {
    /// Called before a query, to limit its processor time.
    pub before_query: Box<dyn Fn()>,
    /// Called after a query, to return its memory.
    pub after_query: Box<dyn Fn()>,
}

impl std::fmt::Debug for WorkerHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerHooks").finish_non_exhaustive()
    }
}

/// Runs the queries that arrive on the socket, over the tables of a data folder, until the server closes the socket or
/// a query does not stop.
///
/// # Errors
/// Returns an error if the socket fails or a message is invalid.
pub async fn run_queries(
    socket: std::os::unix::net::UnixStream,
    config: &Config,
    data: &Path,
    hooks: &WorkerHooks,
) -> Result<()> {
    socket.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(socket)?;
    let (mut reader, mut writer) = socket.split();
    let mut tables = Tables { config, data, open: None };
    // Queries have come, so the next one should not wait for this; it reports an error.
    drop(tables.open().await);
    while let Some(message) = read_message(&mut reader).await? {
        // A cancellation that crossed the result.
        let Message::Query(request) = message else { continue };
        write_accepted(&mut writer).await?;
        (hooks.before_query)();
        let span = match request.traceparent.as_deref().map(|header| ContinuedTrace::of(Some(header))) {
            Some(trace) => trace.span(|| tracing::info_span!("query run", trace_id = %trace.context.trace_id())),
            None => tracing::Span::none(),
        };
        let (outcome, is_reusable) = answer(&mut tables, *request, &mut reader).instrument(span).await?;
        write_outcome(&mut writer, &outcome, is_reusable).await?;
        if !is_reusable {
            return Ok(());
        }
        drop(outcome);
        (hooks.after_query)();
    }
    Ok(())
}

/// Runs a query until it ends or is cancelled. Returns its outcome, and whether the worker is idle then.
async fn answer(
    tables: &mut Tables<'_>,
    request: Request,
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<(std::result::Result<Vec<u8>, Failure>, bool)> {
    // The only message during a query is a cancellation of one byte, so dropping the read loses nothing.
    let outcome = tokio::select! {
        outcome = tables.run(request) => Some(outcome),
        message = read_message(reader) => match message? {
            Some(Message::Cancel) => None,
            Some(Message::Query(_)) => return Err(Error::new(ErrorKind::InvalidData, "a query during another one")),
            None => return Err(ErrorKind::UnexpectedEof.into()),
        },
    };
    let is_stopped = matches!(&outcome, None | Some(Err(Failure { kind: FailureKind::Timeout, .. })));
    let is_reusable = if is_stopped { tables.wait_until_idle().await } else { true };
    if matches!(&outcome, Some(Err(Failure { kind: FailureKind::Unavailable, .. }))) {
        // The next query opens the tables again.
        tables.open = None;
    }
    let cancelled = || Err(Failure { kind: FailureKind::Failed, detail: "the query was cancelled".into() });
    Ok((outcome.unwrap_or_else(cancelled), is_reusable))
}

/// The tables, opened when they are needed.
struct Tables<'a> {
    config: &'a Config,
    data: &'a Path,
    open: Option<(Arc<Lake>, QueryEngine)>,
}

impl Tables<'_> {
    async fn open(&mut self) -> std::result::Result<&(Arc<Lake>, QueryEngine), Failure> {
        if self.open.is_none() {
            let lake = Lake::open_read_only(self.config, self.data).await.map_err(unavailable)?;
            let missing = || Failure { kind: FailureKind::Unavailable, detail: "there are no tables yet".into() };
            let lake = Arc::new(lake.ok_or_else(missing)?);
            let engine = QueryEngine::new(Arc::clone(&lake), self.config.query.clone()).map_err(unavailable)?;
            self.open = Some((lake, engine));
        }
        self.open.as_ref().ok_or_else(|| unavailable("the tables are closed"))
    }

    async fn run(&mut self, request: Request) -> std::result::Result<Vec<u8>, Failure> {
        let (lake, engine) = self.open().await?;
        let Request { tenant, query, format, unflushed, .. } = request;
        lake.set_unflushed_rows(&tenant, &unflushed).await.map_err(unavailable)?;
        drop(unflushed);
        let table = match query {
            Query::Sql(text) => engine.run_sql(&tenant, &text, format).await,
            Query::Named { name, parameters } => engine.run_named(&tenant, &name, parameters.into(), format).await,
            Query::Logs { filter, start_nanos, end_nanos, limit } => {
                let invalid = |detail| Failure { kind: FailureKind::Invalid, detail };
                let filter = LogFilter::parse(&filter).map_err(invalid)?;
                let range = (Timestamp::from_nanos(start_nanos), Timestamp::from_nanos(end_nanos));
                engine.search_logs(&tenant, filter, range, limit, format).await
            }
        };
        table.map_err(|error| failure(&error))
    }

    /// Waits a moment until no query is in progress; returns whether that is so.
    async fn wait_until_idle(&self) -> bool {
        let is_idle = || self.open.as_ref().is_none_or(|(_, engine)| engine.is_idle());
        let deadline = Instant::now() + STOP_TIME;
        while !is_idle() && Instant::now() < deadline {
            tokio::time::sleep(STOP_POLL_INTERVAL).await;
        }
        is_idle()
    }
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Unavailable, detail: error.to_string() }
}

fn failure(error: &QueryError) -> Failure {
    let kind = match error {
        QueryError::Invalid(_) => FailureKind::Invalid,
        QueryError::Refused(_) => FailureKind::Refused,
        QueryError::LimitExceeded(_) => FailureKind::LimitExceeded,
        QueryError::Failed(_) => FailureKind::Failed,
        QueryError::Timeout(_) => FailureKind::Timeout,
        QueryError::TooLarge(_) => FailureKind::TooLarge,
        QueryError::Lake(wardroom_lake::Error::DamagedFile(_)) => FailureKind::Damaged,
        QueryError::Lake(_) => FailureKind::Unavailable,
    };
    Failure { kind, detail: shortened(error.to_string()) }
}

/// Longest detail of a failure, in bytes: it may repeat the query.
const MAX_DETAIL_BYTES: usize = 4096;

fn shortened(mut detail: String) -> String {
    if detail.len() > MAX_DETAIL_BYTES {
        let end = (0..=MAX_DETAIL_BYTES).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or_default();
        detail.truncate(end);
        detail.push('…');
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_details_are_cut_between_characters() {
        assert_eq!(shortened("short".into()), "short");
        let long = shortened(format!("a{}", "ü".repeat(MAX_DETAIL_BYTES)));
        assert!(long.len() <= MAX_DETAIL_BYTES + '…'.len_utf8() && long.ends_with("ü…"), "{}", long.len());
    }
}
