//! Warnings about what a request asked for and did not get: an unknown parameter, an unknown field of the body, rows
//! that are not in the tables yet.
//!
//! Each warning is a `wardroom-warning` header of the response; if the body is a JSON object, `warnings` in it lists
//! them, too. A handler attaches its warnings with [`with_warnings`]; unknown parameters are found for every route.

use std::collections::BTreeSet;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wardroom_domain::visible_line;
use wardroom_edge::{Routes, WARNING_HEADER};

use crate::query_parameters::query_names;
use crate::request_thread::run_apart;

/// Maximum number of unknown names in a warning.
const MAX_NAMES: usize = 10;
/// Maximum length of an unknown name in a warning, in characters.
const MAX_NAME_CHARS: usize = 64;

/// Warnings of a handler, as an extension of its response.
#[derive(Clone, Debug, Default)]
struct Warnings(Vec<String>);

/// Attaches warnings to a response.
pub(crate) fn with_warnings(response: impl IntoResponse, warnings: Vec<String>) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(Warnings(warnings));
    response
}

/// The warning about names that a request has and no one reads; `None` if there are none. `what` is `parameter` or
/// `field`.
pub(crate) fn unknown_names<'a>(
    what: &str,
    unknown: impl IntoIterator<Item = &'a str>,
    known: &[impl AsRef<str>],
) -> Option<String> {
    let distinct: BTreeSet<&str> = unknown.into_iter().collect();
    if distinct.is_empty() {
        return None;
    }
    let shown = |name: &&str| visible_line(&name.chars().take(MAX_NAME_CHARS).collect::<String>()).into_owned();
    let names: Vec<String> = distinct.iter().take(MAX_NAMES).map(shown).collect();
    let more = if distinct.len() > MAX_NAMES { ", …" } else { "" };
    let known = if known.is_empty() {
        "there are none here".to_owned()
    } else {
        format!("known: {}", known.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "))
    };
    Some(format!("unknown {what} ignored: {}{more}; {known}", names.join(", ")))
}

/// The warning about a limit that was out of range; `None` if it was not.
pub(crate) fn changed_limit(asked: u32, used: u32) -> Option<String> {
    (asked != used).then(|| format!("parameter limit: {used} instead of {asked}, which is out of range"))
}

/// Adds the layer that reports warnings to every route of the API. Pages have no parameters.
/// `known_parameters` returns the names of a path's query parameters.
pub(crate) fn report_warnings(routes: Routes, known_parameters: fn(&str) -> &'static [String]) -> Routes {
    routes.map(|route, handler| {
        if !route.path.starts_with("/api/") {
            return handler;
        }
        handler.layer(from_fn_with_state((route.path, known_parameters), report))
    })
}

/// A path, and what returns the names of a path's query parameters.
type KnownParameters = (&'static str, fn(&str) -> &'static [String]);

async fn report(State((path, known)): State<KnownParameters>, request: Request, next: Next) -> Response {
    let names = query_names(request.uri().query().unwrap_or_default());
    // The names are made of the document, which is not made before it is needed.
    let known: &[String] = if names.is_empty() { &[] } else { known(path) };
    let unknown = names.iter().map(String::as_str).filter(|name| !known.iter().any(|it| it == name));
    let unknown = unknown_names("parameter", unknown, known);
    let mut response = next.run(request).await;
    let Warnings(mut warnings) = response.extensions_mut().remove().unwrap_or_default();
    warnings.extend(unknown);
    if warnings.is_empty() {
        return response;
    }
    for warning in &warnings {
        // A header is ASCII.
        let text: String = warning.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().append(WARNING_HEADER, value);
        }
    }
    add_to_json(response, &warnings).await
}

/// Adds the warnings to the body, if that is a JSON object.
async fn add_to_json(response: Response, warnings: &[String]) -> Response {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = content_type.is_some_and(|name| name.starts_with("application/") && name.contains("json"));
    if !is_json || response.body().is_end_stream() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return Response::from_parts(parts, Body::empty()) };
    let (original, warnings) = (bytes.clone(), warnings.to_vec());
    // A response may be large, and is parsed for this.
    let rewritten = run_apart(move || insert_warnings(&original, &warnings)).await.ok().flatten();
    let Some(text) = rewritten else { return Response::from_parts(parts, Body::from(bytes)) };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(text))
}

/// Adds the warnings to a JSON object; returns `None` for anything else.
fn insert_warnings(body: &[u8], warnings: &[String]) -> Option<String> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(body) else { return None };
    match object.get_mut("warnings").and_then(Value::as_array_mut) {
        Some(list) => list.extend(warnings.iter().map(|warning| json!(warning))),
        None => drop(object.insert("warnings".to_owned(), json!(warnings))),
    }
    Some(Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    fn answer(uri: &str) -> (Vec<String>, String) {
        let known: fn(&str) -> &'static [String] = |_| ["since", "match[]"].map(str::to_owned).to_vec().leak();
        let table = async || with_warnings(Json(json!([1])), vec!["rows are missing".to_owned()]);
        let router = axum::Router::new()
            .route("/object", get(async || Json(json!({ "value": 0.1 }))))
            .route("/prometheus", get(async || Json(json!({ "data": [], "warnings": ["truncated"] }))))
            .route("/table", get(table))
            .layer(from_fn_with_state(("/", known), report));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            let response = router.oneshot(request).await.unwrap();
            let headers = response.headers().get_all(WARNING_HEADER).iter();
            let headers = headers.map(|value| value.to_str().unwrap().to_owned()).collect();
            let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (headers, String::from_utf8(bytes.to_vec()).unwrap())
        })
    }

    #[test]
    fn unknown_parameters_are_named_with_the_known_ones() {
        assert_eq!(answer("/object?since=1&match%5B%5D=up"), (vec![], r#"{"value":0.1}"#.to_owned()));
        let warning = "unknown parameter ignored: limt, sinc; known: since, match[]";
        let (headers, body) = answer("/object?sinc=1&limt=5&since=2&limt=6");
        assert_eq!(headers, [warning]);
        assert_eq!(body, format!(r#"{{"value":0.1,"warnings":["{warning}"]}}"#));
        let (_, body) = answer("/prometheus?limt=5");
        assert!(body.contains(r#"["truncated","unknown parameter"#), "{body}");
    }

    #[test]
    fn a_table_keeps_its_form_and_the_warning_is_a_header() {
        let (headers, body) = answer("/table?%1b%E2%80%AE=1");
        assert_eq!((headers.len(), body.as_str()), (2, "[1]"));
        assert!(headers[1].starts_with("unknown parameter ignored: "), "{headers:?}");
    }

    #[test]
    fn names_in_a_warning_are_limited() {
        let many: Vec<String> = (0..100).map(|n| format!("{n:0>300}")).collect();
        let warning = unknown_names("field", many.iter().map(String::as_str), &[""; 0]).unwrap();
        assert!(warning.len() < 1000 && warning.ends_with("…; there are none here"), "{warning}");
    }
}
