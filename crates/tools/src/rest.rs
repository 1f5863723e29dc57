//! JSON over HTTP with a bearer token: what the tools of platforms share.

use std::time::Duration;

use serde_json::Value;
use wardroom_respond::ToolError;

use crate::http_client::{HttpClient, HttpRequest};

/// Maximum duration of one request.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client of one API.
pub(crate) struct Rest {
    pub(crate) http: HttpClient,
    /// Name of the API, for messages.
    pub(crate) name: &'static str,
    /// Base URL, without a slash at its end.
    pub(crate) url: String,
    /// Bearer token.
    pub(crate) token: Option<String>,
    /// Headers of every request.
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// An answer that is no failure of the server.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Null if there is no body.
    pub(crate) body: Value,
}

impl Rest {
    /// Sends a request; any answer below 500 is returned, except that of a limit of requests.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ToolError> {
        let mut request = HttpRequest::new(method, format!("{}{path}", self.url), TIMEOUT);
        for (name, value) in self.headers {
            request = request.header(name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.http.send(request)?;
        let is_exhausted = response.header("x-ratelimit-remaining") == Some("0") && response.status == 403;
        if response.status >= 500 || response.status == 429 || is_exhausted {
            let text = format!("{} answers {} to {method} {path}", self.name, response.status);
            return Err(ToolError::Unavailable(text));
        }
        let body = if response.body.is_empty() { Value::Null } else { response.json()? };
        Ok(Answer { status: response.status, body })
    }

    /// Reads an object that must exist.
    pub(crate) fn get(&self, path: &str) -> Result<Value, ToolError> {
        self.find(path)?.ok_or_else(|| ToolError::Invalid(format!("{} has no {path}", self.name)))
    }

    /// Reads an object; `None` if it does not exist.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Value>, ToolError> {
        let answer = self.send("GET", path, None)?;
        match answer.status {
            404 => Ok(None),
            200..=299 => Ok(Some(answer.body)),
            _ => Err(self.refused(&answer)),
        }
    }

    /// Converts the answer to a refused request.
    pub(crate) fn refused(&self, answer: &Answer) -> ToolError {
        ToolError::Invalid(format!("{} refuses ({}): {}", self.name, answer.status, message(&answer.body)))
    }
}

/// The message in the body of an error, in the forms of GitHub, Google and the beacon API.
pub(crate) fn message(body: &Value) -> &str {
    let message = body["message"].as_str().or_else(|| body["error"]["message"].as_str());
    message.unwrap_or("no reason is given")
}

/// Encodes a part of a path or a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Time between two looks at something that takes long: short for short limits.
pub(crate) fn poll_interval(limit: Duration) -> Duration {
    (limit / 50).clamp(Duration::from_millis(20), Duration::from_secs(5))
}
