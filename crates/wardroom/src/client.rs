//! Talking to a running server.

use anyhow::{Context, bail};
use serde_json::Value;

/// A server and the token for it.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(url: &str, token: Option<String>) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Self { agent, url: url.trim_end_matches('/').to_owned(), token }
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.get_text(path)?)?)
    }

    pub(crate) fn get_text(&self, path: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.get_bytes(path, &[])?)?)
    }

    /// What stands there, with these parameters.
    pub(crate) fn get_bytes(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Vec<u8>> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        bytes(request.call().with_context(|| format!("no answer from {}", self.url))?)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let text = answer(request.send_json(body).with_context(|| format!("no answer from {}", self.url))?)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Sends text, and takes whatever comes.
    pub(crate) fn post_text(&self, path: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let mut request = self.agent.post(format!("{}{path}", self.url)).header("Content-Type", "text/plain");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        bytes(request.send(body).with_context(|| format!("no answer from {}", self.url))?)
    }
}

/// The body, or the problem's own words.
fn answer(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<String> {
    Ok(String::from_utf8(bytes(response)?)?)
}

fn bytes(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Vec<u8>> {
    let status = response.status();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec()?;
    if status.is_success() {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let (code, detail) = (problem["code"].as_str().unwrap_or("error"), problem["detail"].as_str().unwrap_or(&text));
    bail!("{} {code}: {detail}", status.as_u16())
}
