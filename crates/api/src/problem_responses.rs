//! The error responses of the OpenAPI document.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, Object, Ref, RefOr, Response, ResponseBuilder, ResponsesBuilder, Type,
};
use utoipa::{IntoResponses, ToSchema};

/// A problem document (RFC 9457). `code` identifies the kind of error; clients should not parse `detail`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// `urn:wardroom:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// Reason phrase of the status.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code of the error, such as `plan_changed`.
    pub code: String,
    /// Human-readable explanation: the field at fault and the remedy.
    pub detail: String,
    /// Ingest only: number of accepted records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    /// Ingest only: number of rejected records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<u64>,
}

/// The error responses of every guarded operation: 401, 403 and 503.
pub(crate) enum GuardErrors {}

impl IntoResponses for GuardErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let seconds = Object::with_type(Type::Integer);
        let retry_after =
            HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds until the next attempt")).build();
        let unavailable = problem("A dependency is unavailable or overloaded; retry after `Retry-After`");
        ResponsesBuilder::new()
            .response("401", problem("No credential, or an unknown, expired or revoked one"))
            .response("403", problem("The caller's role does not allow the operation"))
            .response("503", unavailable.header("Retry-After", retry_after))
            .build()
            .into()
    }
}

/// [`GuardErrors`], and 404 for an unknown incident id.
pub(crate) enum IncidentErrors {}

impl IntoResponses for IncidentErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = GuardErrors::responses();
        responses.insert("404".to_owned(), problem("`no_such_incident`").build().into());
        responses
    }
}

/// The errors of a query over the tables, besides [`GuardErrors`].
pub(crate) enum TableErrors {}

impl IntoResponses for TableErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = GuardErrors::responses();
        let errors = ResponsesBuilder::new()
            .response("400", problem("A parameter or the query is not valid, or exceeds a limit"))
            .response("404", problem("`lake_off`: there are no tables; an unknown name"))
            .response("422", problem("`query_failed`, `query_too_large` or `query_crashed`"))
            .response("429", problem("`too_many_queries` or `results_unread`; retry after `Retry-After`"))
            .response("500", problem("`lake_damaged`: a file of the tables is damaged"));
        responses.extend(BTreeMap::from(errors.build()));
        responses
    }
}

/// The errors of a form of a page, besides [`IncidentErrors`].
pub(crate) enum FormErrors {}

impl IntoResponses for FormErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = IncidentErrors::responses();
        let errors = ResponsesBuilder::new()
            .response("409", problem("`plan_changed`, `already_used` or `wrong_state`"))
            .response("410", problem("`expired`"))
            .response("415", problem("The body is no form"))
            .response("422", problem("A field of the form is missing"));
        responses.extend(BTreeMap::from(errors.build()));
        responses
    }
}

fn problem(description: &str) -> ResponseBuilder {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content)
}
