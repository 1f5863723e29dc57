//! Questions about the tables.

use std::sync::Arc;

use wardroom_api::{HoldingView, Question, TableForm, TablesBackend};
use wardroom_domain::TenantId;
use wardroom_edge::Problem;
use wardroom_lake::{About, Form, Holding, LogFilter, NAMED, Queries, QueryError};
use wardroom_pipeline::keep::Kept;

use super::{not_found, status};
use crate::clock;

/// Whoever answers them.
#[derive(Clone)]
pub(crate) struct Tables {
    /// Nobody, unless the tables are open.
    pub(crate) queries: Option<Arc<Queries>>,
    /// What becomes of what is taken in.
    pub(crate) kept: Kept,
}

impl Tables {
    /// What the API asks for.
    pub(crate) fn backend(self) -> TablesBackend {
        let (sql, held, named, searched) = (self.clone(), self.clone(), self.clone(), self);
        TablesBackend {
            sql: Arc::new(move |tenant, query, form| {
                let tables = sql.clone();
                Box::pin(async move { tables.sql(&tenant, &query, form).await })
            }),
            holdings: Arc::new(move |tenant| {
                let tables = held.clone();
                Box::pin(async move { tables.holdings(&tenant).await })
            }),
            questions: NAMED.map(|named| (named.name, named.text)).into(),
            ask: Arc::new(move |tenant, question, form| {
                let tables = named.clone();
                Box::pin(async move { tables.ask(&tenant, question, form).await })
            }),
            logs: Arc::new(move |tenant, question, form| {
                let tables = searched.clone();
                Box::pin(async move { tables.logs(&tenant, question, form).await })
            }),
        }
    }

    fn queries(&self) -> Result<&Queries, Problem> {
        let none = || match self.kept.away() {
            Some(why) => Problem::unavailable("lake_unavailable", why),
            None => Problem::new(not_found(), "lake_off", "nothing is kept in tables: lake.enabled is false"),
        };
        self.queries.as_deref().ok_or_else(none)
    }

    /// How much of a tenant's each table holds.
    async fn holdings(&self, tenant: &TenantId) -> Result<Vec<HoldingView>, Problem> {
        let found = self.queries()?.holdings(tenant, clock::now()).await;
        let view =
            |Holding { table, files, rows, bytes, outdated }| HoldingView { table, files, rows, bytes, outdated };
        Ok(found.map_err(|error| problem(error.into()))?.into_iter().map(view).collect())
    }

    /// The answer to a query over one tenant's rows.
    async fn sql(&self, tenant: &TenantId, query: &str, form: TableForm) -> Result<Vec<u8>, Problem> {
        self.queries()?.ask(tenant, query, written(form)).await.map_err(problem)
    }

    /// The answer to a question that has a name.
    async fn ask(&self, tenant: &TenantId, question: Question, form: TableForm) -> Result<Vec<u8>, Problem> {
        let Question { name, start, end, service, trace, error_rate, p99_ms, limit, .. } = question;
        let about = About { start, end, service, trace, error_rate, p99_ms, limit };
        self.queries()?.named(tenant, &name, about, written(form)).await.map_err(problem)
    }

    /// The log lines that are wanted, newest first.
    async fn logs(&self, tenant: &TenantId, question: Question, form: TableForm) -> Result<Vec<u8>, Problem> {
        let filter = LogFilter::parse(&question.filter)
            .map_err(|error| Problem::bad_request("bad_filter", format!("parameter query: {error}")))?;
        let time = (question.start, question.end);
        self.queries()?.logs(tenant, filter, time, question.limit, written(form)).await.map_err(problem)
    }
}

const fn written(form: TableForm) -> Form {
    match form {
        TableForm::Pretty => Form::Pretty,
        TableForm::Json => Form::Json,
        TableForm::Csv => Form::Csv,
        TableForm::Arrow => Form::Arrow,
    }
}

pub(super) fn problem(error: QueryError) -> Problem {
    let detail = error.to_string();
    match error {
        QueryError::Invalid(_) => Problem::bad_request("bad_query", detail),
        QueryError::Refused(_) => Problem::bad_request("not_a_query", detail),
        // As Prometheus tells what can be understood and not be carried out.
        QueryError::Failed(_) => Problem::new(status(422), "query_failed", detail),
        QueryError::TooLarge(_) => Problem::new(status(422), "query_too_large", detail),
        QueryError::TooLong(_) => Problem::unavailable("query_timeout", detail),
        QueryError::Lake(_) => Problem::unavailable("lake_unavailable", detail),
    }
}
