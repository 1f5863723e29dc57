//! Parsing of query parameters and forms.

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Query, RawForm, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use wardroom_edge::Problem;

/// Parameters parsed from the query string; a value that cannot be parsed gets 400 with the name of the parameter.
pub(crate) struct QueryParameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let parsed = Query::try_from_uri(&parts.uri);
        let Query(parameters) = parsed.map_err(|rejection| {
            // Begins with the name of the parameter.
            let text = rejection.body_text();
            let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Problem::bad_request("bad_parameter", format!("parameter {}", with_remedy(reason)))
        })?;
        Ok(Self(parameters))
    }
}

/// Says what to write, where the reason is a text of Rust's number parsers.
fn with_remedy(reason: &str) -> String {
    let Some((name, detail)) = reason.split_once(": ") else { return reason.to_owned() };
    let remedy = match detail {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "write a whole number that is not negative"
        }
        "number too large to fit in target type" => "the number is too large; write a smaller one",
        "invalid float literal" | "cannot parse float from empty string" => "write a number",
        "provided string was not `true` or `false`" => "write true or false",
        other => other,
    };
    format!("{name}: {remedy}")
}

/// The parameters of the query string and of a form in the body, in this order, as Prometheus reads them.
pub(crate) struct FormPairs(pub(crate) Vec<u8>);

impl<S: Send + Sync> FromRequest<S> for FormPairs {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let mut pairs = request.uri().query().unwrap_or_default().as_bytes().to_vec();
        if request.method().is_safe() || request.body().is_end_stream() {
            return Ok(Self(pairs));
        }
        let RawForm(form) = RawForm::from_request(request, state)
            .await
            .map_err(|rejection| Problem::new(rejection.status(), "bad_body", rejection.body_text()))?;
        if !pairs.is_empty() && !form.is_empty() {
            pairs.push(b'&');
        }
        pairs.extend_from_slice(&form);
        Ok(Self(pairs))
    }
}

/// Splits a query string into percent-decoded pairs; a name may repeat.
pub(crate) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (percent_decode(name), percent_decode(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// Returns the names of a query string's parameters, percent-decoded. The values, which may be long, are not decoded.
pub(crate) fn query_names(query: &str) -> Vec<String> {
    let name = |part: &str| percent_decode(part.split_once('=').map_or(part, |(name, _)| name));
    query.split('&').filter(|part| !part.is_empty()).map(name).collect()
}

/// Decodes escapes and `+`; an escape without two digits is left out.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                if let (Some(high), Some(low)) = (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                    out.push(high * 16 + low);
                }
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn query_names_may_repeat_and_values_are_decoded() {
        let pairs = query_pairs("match[]=up%7Bjob%3D%22a+b%22%7D&match%5B%5D=x&start=1");
        let expected = [("match[]", "up{job=\"a b\"}"), ("match[]", "x"), ("start", "1")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn escapes_may_be_invalid() {
        for (text, decoded) in [("%E2%82%ac+%2B", "€ +"), ("a%zzb%4", "ab"), ("%", ""), ("%FF", "\u{fffd}")] {
            assert_eq!(percent_decode(text), decoded, "{text}");
        }
        assert_eq!(query_names("a%5B%5D=%&&b&=c&d=e=f"), ["a[]", "b", "", "d"]);
    }

    #[test]
    fn a_form_is_read_with_the_parameters_of_its_address() {
        let read = |method: &str, uri: &str, body: &'static str| {
            let request = Request::builder().method(method).uri(uri);
            let request = request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(body));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(FormPairs::from_request(request.unwrap(), &()));
            read.map(|pairs| String::from_utf8(pairs.0).unwrap()).map_err(|problem| problem.code())
        };
        assert_eq!(read("POST", "/?limit=1", "match[]=up").unwrap(), "limit=1&match[]=up");
        assert_eq!(read("POST", "/", "match[]=up").unwrap(), "match[]=up");
        assert_eq!(read("GET", "/?a=b", "").unwrap(), "a=b");
        assert_eq!(read("POST", "/?a=b", "").unwrap(), "a=b");
    }

    #[test]
    fn a_value_that_cannot_be_parsed_is_a_problem_with_its_name() {
        #[derive(Debug, serde::Deserialize)]
        struct Page {
            #[expect(dead_code, reason = "only parsed")]
            limit: Option<u32>,
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (uri, detail) in [
            ("/?limit=many", "parameter limit: write a whole number that is not negative"),
            ("/?limit=", "parameter limit: write a whole number that is not negative"),
            ("/?limit=-1", "parameter limit: write a whole number that is not negative"),
            ("/?limit=99999999999", "parameter limit: the number is too large; write a smaller one"),
        ] {
            let (mut parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
            let parsed = runtime.block_on(QueryParameters::<Page>::from_request_parts(&mut parts, &()));
            let problem = parsed.map(|page| page.0).unwrap_err();
            assert_eq!((problem.code(), problem.detail()), ("bad_parameter", detail), "{uri}");
        }
    }
}
