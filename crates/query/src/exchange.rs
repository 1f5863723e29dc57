//! One query on one worker: sends it, receives the answer, and stops it when the pool says so.

use std::future::Future;
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use wardroom_domain::TenantId;

use crate::error::PoolError;
use crate::protocol::{Answer, Failure, Request, read_answer, read_bytes, write_cancel, write_request};
use crate::results::ResultBudget;

/// Time that a worker gets to stop a cancelled query.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);

/// How a query ended.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// The worker answered.
    Answered { result: std::result::Result<Bytes, PoolError>, is_reusable: bool },
    /// The worker ended, or broke the protocol.
    Ended { accepted: bool },
    /// The worker did not answer in time.
    Deadline,
    /// The query was stopped, for this reason.
    Stopped { reason: PoolError, is_reusable: bool },
}

/// Runs a query on a worker until the deadline, or until `stop` says why it is to be stopped.
///
/// The limits are the deadline, the memory of results, and the size of one.
pub(crate) async fn exchange(
    stream: &mut UnixStream,
    request: &Request,
    (deadline, results, max_bytes): (Instant, &Arc<ResultBudget>, u64),
    mut stop: Pin<&mut impl Future<Output = PoolError>>,
) -> Exchange {
    let (mut reader, mut writer) = stream.split();
    let sent = tokio::select! {
        sent = timeout_at(deadline, write_request(&mut writer, request)) => sent,
        // The worker waits for the rest of the request.
        reason = &mut stop => return Exchange::Stopped { reason, is_reusable: false },
    };
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Exchange::Ended { accepted: false },
        Err(_) => return Exchange::Deadline,
    }
    let accepted = AtomicBool::new(false);
    let answer = receive(&mut reader, &accepted, &request.tenant, results, max_bytes);
    tokio::pin!(answer);
    tokio::select! {
        answer = timeout_at(deadline, &mut answer) => match answer {
            Ok(Ok((result, is_reusable))) => Exchange::Answered { result, is_reusable },
            Ok(Err(_)) => Exchange::Ended { accepted: accepted.load(Ordering::Relaxed) },
            Err(_) => Exchange::Deadline,
        },
        reason = &mut stop => {
            let is_reusable = write_cancel(&mut writer).await.is_ok()
                && matches!(timeout(CANCEL_TIMEOUT, answer).await, Ok(Ok((_, true))));
            Exchange::Stopped { reason, is_reusable }
        }
    }
}

/// Receives the result or failure, and whether the worker runs further queries.
async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    accepted: &AtomicBool,
    tenant: &TenantId,
    results: &Arc<ResultBudget>,
    max_bytes: u64,
) -> Result<(std::result::Result<Bytes, PoolError>, bool)> {
    loop {
        match read_answer(from).await? {
            Answer::Accepted => accepted.store(true, Ordering::Relaxed),
            Answer::Failure { is_reusable, failure: Failure { kind, detail } } => {
                return Ok((Err(PoolError::Query { kind, detail }), is_reusable));
            }
            Answer::Result { bytes, .. } if bytes > max_bytes => {
                return Err(std::io::Error::other("the result is larger than allowed"));
            }
            Answer::Result { is_reusable, bytes } => {
                let Some(room) = results.reserve(tenant, bytes) else {
                    tokio::io::copy(&mut from.take(bytes), &mut tokio::io::sink()).await?;
                    return Ok((Err(PoolError::ResultsUnread), is_reusable));
                };
                return Ok((Ok(room.hold(read_bytes(from, bytes).await?)), is_reusable));
            }
        }
    }
}
