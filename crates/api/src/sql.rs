//! `POST /api/v1/sql`: questions nobody foresaw.

use axum::extract::Query;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::incidents::Who;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new().post(
        "/api/v1/sql",
        Access::Read,
        move |who: Who, form: Query<Asked>, headers: HeaderMap, body: String| {
            ask(backend.clone(), who, form, headers, body)
        },
    )
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableForm {
    /// A table of text.
    Pretty,
    /// An array of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl TableForm {
    const ALL: [Self; 4] = [Self::Json, Self::Csv, Self::Arrow, Self::Pretty];

    const fn media_type(self) -> &'static str {
        match self {
            Self::Pretty => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The form of that name.
    pub(crate) fn named(name: &str) -> Result<Self, Problem> {
        let detail = || format!("parameter format: {name:?} is none of pretty, json, csv, arrow");
        serde_json::from_value(name.into()).map_err(|_| Problem::bad_request("bad_format", detail()))
    }

    /// The first of an `Accept` header's types that there is; JSON for whoever does not care.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let wanted = accept.split(',').map(name);
        let known = |wanted: String| Self::ALL.into_iter().find(|form| name(form.media_type()) == wanted);
        wanted.filter_map(known).next().unwrap_or(Self::Json)
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    format: Option<String>,
}

/// The body of a question in JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    query: String,
}

async fn ask(
    backend: Backend,
    who: Who,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, Problem> {
    let form = match asked.format {
        Some(name) => TableForm::named(&name)?,
        None => TableForm::accepted(&headers),
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = if kind.starts_with("application/json") {
        let question: Question = serde_json::from_str(&body)
            .map_err(|error| Problem::bad_request("bad_body", format!("body: {error}; it is {{\"query\": \"…\"}}")))?;
        question.query
    } else {
        body
    };
    Ok(table(form, (backend.tables.sql)(who.tenant.clone(), query, form).await?))
}

/// An answer that is a table.
pub(crate) fn table(form: TableForm, table: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, form.media_type())], table).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_type_is_the_answers() {
        for (accept, form) in [
            ("", TableForm::Json),
            ("*/*", TableForm::Json),
            ("text/csv", TableForm::Csv),
            ("text/html, application/vnd.apache.arrow.stream;q=0.9, text/csv", TableForm::Arrow),
            ("TEXT/PLAIN", TableForm::Pretty),
        ] {
            let headers = [(header::ACCEPT, accept.parse().unwrap())].into_iter().collect();
            assert_eq!(TableForm::accepted(&headers), form, "{accept}");
        }
    }
}
