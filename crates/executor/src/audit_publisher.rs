//! Publishes the signed heads of the audit log outside of the data folder.
//!
//! Problem: who can write the whole data folder can put log *and* ledger back to an earlier state, which is valid in
//! itself. Model: the executor sends its last signed head, every minute or 100 entries, to places that it cannot
//! rewrite: a file on another disk, or a server. Guarantee: a log that ends before a published head is noticed where
//! the head is (`wardroom audit verify --heads`). The server has no part in it; if it withholds entries, `/readyz` and
//! `audit verify` say that they are not signed.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;
use wardroom_domain::audit_head::SignedHead;
use wardroom_tools::http_client::HttpRequest;
use wardroom_tools::{Context, Secret};

use crate::audit_object_store::{ObjectStoreSigning, error_code, warn_without_versions};

/// Longest time between a signature and its publication.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(60);
/// Entries after which a head is published before that.
const PUBLISH_ENTRIES: i64 = 100;
/// Interval between two checks for a new head.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between attempts while a place does not take a head.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A place outside of the data folder.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HeadDestination {
    /// File to which heads are appended, one JSON document a line; on another disk. Its folder exists. Since 0.2.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// URL to which heads are sent as JSON. Since 0.2.
    #[serde(default)]
    pub url: Option<String>,
    /// `post` (default): each head to the URL itself. `put`: each to a name of its own below the URL, such as
    /// `…/000000000042.json`, for a store with versions or retention. Since 0.2.
    #[serde(default)]
    pub method: HeadMethod,
    /// Bearer token for the URL, by reference as for targets. Since 0.2.
    #[serde(default)]
    pub token: Option<Secret>,
    /// In place of a token: requests are signed for an object store with Amazon's protocol. `method` is `put` then.
    /// Since 0.2.
    #[serde(default)]
    pub s3: Option<ObjectStoreSigning>,
}

/// How heads are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HeadMethod {
    /// To the URL itself.
    #[default]
    Post,
    /// Each to a name of its own below the URL.
    Put,
}

impl HeadDestination {
    /// Checks the fields, without contacting anything.
    ///
    /// # Errors
    /// Returns the reason and a remedy.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (&self.file, &self.url) {
            _ if self.token.is_some() && self.s3.is_some() => Err("give either token or s3".to_owned()),
            (Some(_), None) if self.token.is_some() || self.s3.is_some() => {
                Err("a file needs no token and no s3; remove it".to_owned())
            }
            (Some(file), None) if file.is_absolute() => Ok(()),
            (Some(_), None) => Err("file: it is not an absolute path".to_owned()),
            (None, Some(url)) => match Url::parse(url) {
                Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() && url.password().is_none() => {
                    self.s3.as_ref().map_or(Ok(()), ObjectStoreSigning::check).map_err(|reason| format!("s3.{reason}"))
                }
                _ => Err("url: it is not a URL with http:// or https://, a host and no password; use token".to_owned()),
            },
            _ => Err("give either file or url".to_owned()),
        }
    }

    /// Returns the place for messages.
    fn describe(&self) -> String {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        file.or_else(|| self.url.clone()).unwrap_or_default()
    }

    fn publish(&self, head: &SignedHead, context: &Context) -> Result<(), String> {
        match (&self.file, &self.url) {
            (Some(file), _) => append(file, head).map_err(|error| error.to_string()),
            (None, Some(url)) => self.send(url, head, context),
            (None, None) => Ok(()),
        }
    }

    fn send(&self, url: &str, head: &SignedHead, context: &Context) -> Result<(), String> {
        let is_put = self.method == HeadMethod::Put || self.s3.is_some();
        let name = format!("{}/{:012}.json", url.trim_end_matches('/'), head.head.position.sequence);
        let (method, url) = if is_put { ("PUT", name) } else { ("POST", url.to_owned()) };
        let mut request = HttpRequest::new(method, url, REQUEST_TIMEOUT).json(&json!(head));
        if let Some(token) = &self.token {
            let token = context.secrets.resolve(token).map_err(|error| error.to_string())?;
            request = request.header("Authorization", format!("Bearer {}", token.as_str()));
        }
        if let Some(signing) = &self.s3 {
            request = signing.sign(request, context)?;
        }
        let url = request.url.clone();
        let response = context.http().send(request).map_err(|error| error.to_string())?;
        if !response.is_success() {
            return Err(format!("status {}{}", response.status, error_code(&response)));
        }
        if self.s3.is_some() {
            warn_without_versions(&response, &url);
        }
        Ok(())
    }
}

/// Appends a head as a line; after a torn line, on a new one.
fn append(file: &Path, head: &SignedHead) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(file)?;
    let mut line = String::new();
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.push('\n');
        }
    }
    line += &serde_json::to_string(head)?;
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

/// What has been published where.
#[derive(Debug, Default)]
pub(crate) struct Publication(Mutex<Option<String>>);

impl Publication {
    /// Returns why a head is not published where it should be.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// Publishes heads until the process ends. The places are those of the configuration at the start.
pub(crate) fn run(
    destinations: &[HeadDestination],
    publication: &Publication,
    last_head: impl Fn() -> Option<(SignedHead, Context)>,
) {
    let mut places: Vec<Place<'_>> = destinations.iter().map(Place::new).collect();
    while !places.is_empty() {
        if let Some((head, context)) = last_head() {
            let problems: Vec<String> = places.iter_mut().filter_map(|place| place.update(&head, &context)).collect();
            publication.set((!problems.is_empty()).then(|| problems.join("; ")));
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
}

struct Place<'a> {
    destination: &'a HeadDestination,
    /// Entry of the last head that it has taken.
    sequence: i64,
    /// When it took one, or failed to.
    tried_at: Option<Instant>,
    problem: Option<String>,
}

impl<'a> Place<'a> {
    const fn new(destination: &'a HeadDestination) -> Self {
        Self { destination, sequence: 0, tried_at: None, problem: None }
    }

    /// Publishes a head if it is due. Returns why the place does not have it.
    fn update(&mut self, head: &SignedHead, context: &Context) -> Option<String> {
        let entries = head.head.position.sequence - self.sequence;
        let since = self.tried_at.map_or(PUBLISH_INTERVAL, |tried_at| tried_at.elapsed());
        let wait = if self.problem.is_some() { RETRY_INTERVAL } else { PUBLISH_INTERVAL };
        let is_due = since >= wait || (entries >= PUBLISH_ENTRIES && self.problem.is_none());
        if entries != 0 && is_due {
            self.tried_at = Some(Instant::now());
            match self.destination.publish(head, context) {
                Ok(()) => (self.sequence, self.problem) = (head.head.position.sequence, None),
                Err(error) => {
                    let problem = format!("{}: {error}", self.destination.describe());
                    if self.problem.as_ref() != Some(&problem) {
                        tracing::error!(problem, "a head of the audit log cannot be published; retrying");
                    }
                    self.problem = Some(problem);
                }
            }
        }
        self.problem.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use wardroom_domain::Timestamp;
    use wardroom_domain::audit_head::ChainPosition;

    use super::*;

    fn head(sequence: i64) -> SignedHead {
        let position = ChainPosition { sequence, hash: "ab".into() };
        let head = SignedHead::next(None, position, None, Timestamp::from_millis(0)).unwrap();
        SignedHead { head, public_key: "key".into(), signature: "signature".into() }
    }

    fn destination(value: serde_json::Value) -> HeadDestination {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_head_is_appended_after_a_minute_or_a_hundred_entries() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("heads.jsonl");
        std::fs::write(&file, "torn").unwrap();
        let destination = destination(json!({ "file": file }));
        destination.check().unwrap();
        let (mut place, context) = (Place::new(&destination), Context::of_descriptions());
        let lines = || std::fs::read_to_string(&file).unwrap().lines().count();
        for (sequence, expected) in [(5, 2), (6, 2), (104, 2), (105, 3), (105, 3), (204, 3), (205, 4)] {
            assert_eq!(place.update(&head(sequence), &context), None);
            assert_eq!(lines(), expected, "{sequence}");
        }
        place.tried_at = Instant::now().checked_sub(PUBLISH_INTERVAL);
        place.update(&head(206), &context);
        assert_eq!(lines(), 5);
        let text = std::fs::read_to_string(&file).unwrap();
        let last: SignedHead = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last, head(206));
    }

    #[test]
    fn a_place_that_fails_is_reported_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("missing/heads.jsonl");
        let destination = destination(json!({ "file": file }));
        let (mut place, context) = (Place::new(&destination), Context::of_descriptions());
        assert!(place.update(&head(1), &context).unwrap().contains("missing/heads.jsonl: "));
        std::fs::create_dir(dir.path().join("missing")).unwrap();
        assert!(place.update(&head(1), &context).is_some(), "not before the next attempt");
        place.tried_at = Instant::now().checked_sub(RETRY_INTERVAL);
        assert_eq!(place.update(&head(1), &context), None);
    }

    #[test]
    fn a_head_is_sent_to_a_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/heads/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let respond = |status: &str| {
                let stream = listener.accept().unwrap().0;
                let mut reader = BufReader::new(&stream);
                let (mut first, mut length) = (String::new(), 0);
                reader.read_line(&mut first).unwrap();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(found) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = found.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
                (first, serde_json::from_slice::<SignedHead>(&body).unwrap())
            };
            [respond("503 Service Unavailable"), respond("201 Created")]
        });
        let put = destination(json!({ "url": url, "method": "put", "token": "secret" }));
        put.check().unwrap();
        let context = Context::of_descriptions();
        assert!(put.publish(&head(42), &context).unwrap_err().contains("503"));
        put.publish(&head(42), &context).unwrap();
        for (first, sent) in server.join().unwrap() {
            assert!(first.starts_with("PUT /heads/000000000042.json "), "{first}");
            assert_eq!(sent, head(42));
        }
    }

    #[test]
    fn a_place_is_one_file_or_one_url() {
        let s3 = |region: &str| json!({ "region": region, "access-key-id": "A", "secret-access-key": "PW" });
        destination(json!({ "url": "https://a/bucket", "s3": s3("auto") })).check().unwrap();
        for wrong in [
            json!({}),
            json!({ "file": "heads.jsonl" }),
            json!({ "file": "/a", "url": "https://a" }),
            json!({ "file": "/a", "token": "x" }),
            json!({ "url": "ftp://a" }),
            json!({ "url": "https://u:PW@a" }),
            json!({ "url": "https://a", "token": "x", "s3": s3("auto") }),
            json!({ "file": "/a", "s3": s3("auto") }),
            json!({ "url": "https://a", "s3": s3("a b") }),
        ] {
            let error = destination(wrong.clone()).check().unwrap_err();
            assert!(!error.contains("PW"), "{wrong}: {error}");
        }
    }
}
