//! Normalised request headers.

use axum::http::{HeaderMap, header};

/// Returns the lower-case media type with its `proto` parameter, if any.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let text = header_text(headers, &header::CONTENT_TYPE);
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let proto = parts.find(|part| part.starts_with("proto=")).map(|part| part.replace('"', ""));
    proto.map_or_else(|| kind.to_owned(), |proto| format!("{kind};{proto}"))
}

/// Returns a header in lower case; empty if it is missing.
pub(crate) fn header_text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim().to_ascii_lowercase()
}
