//! Requests with an idempotency key: noted before they are handled, answered with what was kept afterwards.

use wardroom_domain::{Identity, Timestamp};

use crate::database::query;
use crate::error::Error;
use crate::store::Store;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAnswer {
    /// HTTP status.
    pub status: u16,
    /// Content type; empty for none.
    pub content_type: String,
    /// The body; `None` if it is not kept.
    pub body: Option<String>,
}

/// What is noted of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// SHA-256 of the request, in hex.
    pub fingerprint: String,
    /// The process that handles it, or has.
    pub worker: String,
    /// The answer; `None` while it is being handled.
    pub answer: Option<RequestAnswer>,
}

impl Store {
    /// Notes that a request begins. Returns what was noted of its key before; `None` if nothing was, so that the caller
    /// handles it.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or written.
    pub async fn begin_request(
        &self,
        caller: &Identity,
        key: &str,
        request: &RequestRow,
        now: Timestamp,
    ) -> Result<Option<RequestRow>, Error> {
        let insert = "INSERT INTO requests (tenant, principal, key, fingerprint, begun_at, worker)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, principal, key) DO NOTHING";
        let mut transaction = self.begin_write().await?;
        let inserted = query(insert)
            .bind(caller.tenant.as_str())
            .bind(caller.principal.as_str())
            .bind(key)
            .bind(&request.fingerprint)
            .bind(now.nanos())
            .bind(&request.worker)
            .execute(&mut transaction)
            .await;
        if self.record_write(inserted)? > 0 {
            self.commit(transaction).await?;
            return Ok(None);
        }
        let select = "SELECT fingerprint, worker, status, content_type, body FROM requests
            WHERE tenant = $1 AND principal = $2 AND key = $3";
        let row = query(select)
            .bind(caller.tenant.as_str())
            .bind(caller.principal.as_str())
            .bind(key)
            .fetch_one(&mut transaction)
            .await?;
        let status: Option<i64> = row.get("status")?;
        let answer = status.and_then(|status| u16::try_from(status).ok()).map(|status| {
            let content_type = row.get::<Option<String>>("content_type")?.unwrap_or_default();
            Ok::<_, Error>(RequestAnswer { status, content_type, body: row.get("body")? })
        });
        let answer = answer.transpose()?;
        Ok(Some(RequestRow { fingerprint: row.get("fingerprint")?, worker: row.get("worker")?, answer }))
    }

    /// Notes the answer to a request; without one the key is free again.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn end_request(&self, caller: &Identity, key: &str, answer: Option<&RequestAnswer>) -> Result<(), Error> {
        let statement = match answer {
            Some(answer) => query(
                "UPDATE requests SET status = $4, content_type = $5, body = $6
                 WHERE tenant = $1 AND principal = $2 AND key = $3",
            )
            .bind(caller.tenant.as_str())
            .bind(caller.principal.as_str())
            .bind(key)
            .bind(i64::from(answer.status))
            .bind(&answer.content_type)
            .bind(answer.body.as_deref()),
            None => query("DELETE FROM requests WHERE tenant = $1 AND principal = $2 AND key = $3")
                .bind(caller.tenant.as_str())
                .bind(caller.principal.as_str())
                .bind(key),
        };
        let mut transaction = self.begin_write().await?;
        self.record_write(statement.execute(&mut transaction).await)?;
        self.commit(transaction).await
    }

    /// Deletes what was noted of requests that began before a time.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn delete_requests_before(&self, before: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        let delete = query("DELETE FROM requests WHERE begun_at < $1").bind(before.nanos());
        self.record_write(delete.execute(&mut transaction).await)?;
        self.commit(transaction).await
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Principal, TenantId};

    use super::*;

    #[tokio::test]
    async fn a_key_is_handled_once_and_answered_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wardroom.db")).await.unwrap();
        let caller = |principal: &str| Identity {
            tenant: TenantId::main(),
            principal: Principal::new(principal).unwrap(),
            role: AccessRole::Responder,
        };
        let (ann, bob) = (caller("ann"), caller("bob"));
        let row = RequestRow { fingerprint: "f".into(), worker: "w".into(), answer: None };
        let at = Timestamp::from_millis(1000);
        let begin = async |caller: &Identity| store.begin_request(caller, "k", &row, at).await.unwrap();
        assert_eq!(begin(&ann).await, None);
        assert_eq!(begin(&ann).await, Some(row.clone()), "it is being handled");
        assert_eq!(begin(&bob).await, None, "the key of another caller");
        store.end_request(&ann, "k", None).await.unwrap();
        assert_eq!(begin(&ann).await, None, "nothing was done");
        let answer = RequestAnswer { status: 202, content_type: "application/json".into(), body: Some("{}".into()) };
        store.end_request(&ann, "k", Some(&answer)).await.unwrap();
        assert_eq!(begin(&ann).await.unwrap().answer, Some(answer));
        store.delete_requests_before(Timestamp::from_millis(1001)).await.unwrap();
        assert_eq!(begin(&ann).await, None);
    }
}
