//! In-memory object store with fault injection. Serves the subset of the S3 and Google Cloud Storage XML APIs that
//! `object_store` uses.
//!
//! Existing emulators do not suffice: Google's ignores `x-goog-if-generation-match`, and none can be told to ignore
//! conditions, to lose a response after the write, or to be unavailable for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use wardroom_domain::Timestamp;

use crate::now_ms;

/// While `unreliable` is set, one response and one request out of this many fail.
const FAULT_INTERVAL_REQUESTS: u64 = 20;
/// Keys per page of a listing.
const PAGE_KEYS: usize = 1000;

/// A stored object.
#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    generation: u64,
    written_ms: i64,
}

/// Faults that the store injects.
#[derive(Debug, Default)]
pub struct StoreFaults {
    /// Ignore `If-None-Match` and `x-goog-if-generation-match`.
    pub ignore_conditions: AtomicBool,
    /// Lose some responses after the request is carried out, and return 503 for some requests.
    pub unreliable: AtomicBool,
    /// Return 503 for every request.
    pub unavailable: AtomicBool,
}

/// A running store with a single bucket; its name is ignored.
pub struct FakeObjectStore {
    /// Endpoint URL.
    pub url: String,
    /// Injected faults; may be changed while the store runs.
    pub faults: Arc<StoreFaults>,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    objects: Mutex<BTreeMap<String, Object>>,
    generation: AtomicU64,
    requests: AtomicU64,
    faults: Arc<StoreFaults>,
}

impl FakeObjectStore {
    /// Starts a store on a free loopback port.
    ///
    /// # Errors
    /// Returns an error if no port can be bound.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let faults = Arc::new(StoreFaults::default());
        let state = Arc::new(State {
            objects: Mutex::default(),
            generation: AtomicU64::new(1),
            requests: AtomicU64::new(0),
            faults: Arc::clone(&faults),
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let url = format!("http://{}", listener.local_addr()?);
        let handle = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let state = Arc::clone(&state);
            async move { state.handle(&method, &uri, &headers, &body) }
        };
        let routes = axum::Router::new().fallback(handle).layer(axum::extract::DefaultBodyLimit::disable());
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { url, faults, _runtime: runtime })
    }
}

impl State {
    fn handle(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
        let request = self.requests.fetch_add(1, Ordering::AcqRel);
        let unreliable = self.faults.unreliable.load(Ordering::Acquire);
        if self.faults.unavailable.load(Ordering::Acquire) || (unreliable && request % FAULT_INTERVAL_REQUESTS == 7) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        // Path: bucket, then key.
        let path = uri.path().trim_start_matches('/');
        let key = percent_decode(path.split_once('/').map_or("", |(_, key)| key));
        let query: BTreeMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (percent_decode(name), percent_decode(&value.replace('+', " "))))
            .collect();
        let response = match (method, key.is_empty()) {
            (&Method::PUT, false) => self.put(key, headers, body),
            (&Method::GET | &Method::HEAD, false) => self.get(&key, headers),
            (&Method::DELETE, false) => {
                self.objects().remove(&key);
                StatusCode::NO_CONTENT.into_response()
            }
            (&Method::GET, true) => self.list(&query),
            (&Method::POST, true) if query.contains_key("delete") => self.delete_all(body),
            _ => StatusCode::NOT_IMPLEMENTED.into_response(),
        };
        if unreliable && request % FAULT_INTERVAL_REQUESTS == 13 {
            return StatusCode::GATEWAY_TIMEOUT.into_response();
        }
        response
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: String, headers: &HeaderMap, body: &Bytes) -> Response {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let must_be_new = header("if-none-match") == Some("*") || header("x-goog-if-generation-match") == Some("0");
        let mut objects = self.objects();
        if must_be_new && objects.contains_key(&key) && !self.faults.ignore_conditions.load(Ordering::Acquire) {
            return StatusCode::PRECONDITION_FAILED.into_response();
        }
        let generation = self.generation.fetch_add(1, Ordering::AcqRel);
        let object = Object { body: body.clone(), generation, written_ms: now_ms() };
        let headers = object_headers(&object);
        objects.insert(key, object);
        headers.into_response()
    }

    fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some(object) = self.objects().get(key).cloned() else { return StatusCode::NOT_FOUND.into_response() };
        let range = headers.get("range").and_then(|value| value.to_str().ok()?.strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return (object_headers(&object), object.body).into_response();
        };
        let size = object.body.len();
        let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, (last + 1).min(size)),
            (Ok(first), Err(_)) => (first, size),
            (Err(_), Ok(count)) => (size.saturating_sub(count), size),
            (Err(_), Err(_)) => return StatusCode::BAD_REQUEST.into_response(),
        };
        if start >= end {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let part = [("content-range", format!("bytes {start}-{}/{size}", end - 1))];
        (StatusCode::PARTIAL_CONTENT, object_headers(&object), part, object.body.slice(start..end)).into_response()
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Response {
        let parameter = |name: &str| query.get(name).map_or("", String::as_str);
        let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
        let after = parameter("start-after").max(parameter("continuation-token"));
        let objects = self.objects();
        let (mut text, mut folders, mut count, mut last) = (String::new(), BTreeSet::new(), 0, None);
        let mut is_truncated = false;
        for (key, object) in objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after) {
            let rest = key.strip_prefix(prefix).unwrap_or_default();
            let folder = Some(delimiter).filter(|delimiter| !delimiter.is_empty());
            if let Some((folder, _)) = folder.and_then(|delimiter| rest.split_once(delimiter)) {
                folders.insert(format!("{prefix}{folder}{delimiter}"));
                continue;
            }
            if count == PAGE_KEYS {
                is_truncated = true;
                break;
            }
            count += 1;
            last = Some(key.clone());
            let at = Timestamp::from_millis(object.written_ms);
            // Writing to a `String` cannot fail.
            let _infallible = write!(
                text,
                "<Contents><Key>{key}</Key><LastModified>{at}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
                object.generation,
                object.body.len()
            );
        }
        for folder in folders {
            let _infallible = write!(text, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
        }
        let next = last.filter(|_| is_truncated);
        let next = next.map_or(String::new(), |key| format!("<NextContinuationToken>{key}</NextContinuationToken>"));
        let body =
            format!("<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{next}{text}</ListBucketResult>");
        ([("content-type", "application/xml")], body).into_response()
    }

    fn delete_all(&self, body: &Bytes) -> Response {
        let text = String::from_utf8_lossy(body);
        let mut objects = self.objects();
        let mut xml = String::from("<DeleteResult>");
        for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")).map(|(key, _)| key) {
            objects.remove(key);
            let _infallible = write!(xml, "<Deleted><Key>{key}</Key></Deleted>");
        }
        xml.push_str("</DeleteResult>");
        ([("content-type", "application/xml")], xml).into_response()
    }
}

/// Returns the response headers of an object.
fn object_headers(object: &Object) -> [(HeaderName, String); 3] {
    let at = http_date(object.written_ms);
    [
        (HeaderName::from_static("etag"), format!("\"{}\"", object.generation)),
        (HeaderName::from_static("last-modified"), at),
        (HeaderName::from_static("x-goog-generation"), object.generation.to_string()),
    ]
}

/// Formats a time as an HTTP date (RFC 9110, 5.6.7).
fn http_date(ms: i64) -> String {
    let text = Timestamp::from_millis(ms).to_string();
    let days = ms.div_euclid(86_400_000);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][days.rem_euclid(7) as usize];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = text.get(5..7).and_then(|digits| digits.parse::<usize>().ok()).unwrap_or(1);
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    format!("{weekday}, {} {} {} {} GMT", part(8..10), months[month - 1], part(0..4), part(11..19))
}

/// Decodes percent-encoding.
fn percent_decode(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        let digits = if byte == b'%' { bytes.next().zip(bytes.next()) } else { None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match digits.and_then(|(high, low)| Some(digit(high)? * 16 + digit(low)?)) {
            Some(code) => out.push(code as u8),
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_http_dates_and_decodes_keys() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(percent_decode("tenant%3Dmain/day=1"), "tenant=main/day=1");
    }
}
