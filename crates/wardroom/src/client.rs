//! HTTP client for a running server.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::output::{print_json, print_line, print_warning};

/// Header with a warning about the request, such as rows that are not in the tables yet.
const WARNING_HEADER: &str = "wardroom-warning";

/// Maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: u64 = 1 << 30;

#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteArgs {
    /// URL of the server.
    #[arg(long, env = "WARDROOM_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Bearer token for the server.
    #[arg(long, env = "WARDROOM_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl RemoteArgs {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url, self.token.clone())
    }
}

/// [`RemoteArgs`] of a command that can print the server's response as JSON.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteJsonArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl RemoteJsonArgs {
    pub(crate) fn client(&self) -> Client {
        self.remote.client()
    }

    /// Prints the response with `--json`, else a message.
    pub(crate) fn print(&self, response: &Value, message: &str) -> std::io::Result<()> {
        if self.json { print_json(response) } else { print_line(message) }
    }
}

/// A server and the token for it.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

impl Client {
    fn new(url: &str, token: Option<String>) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Self { agent, url: url.trim_end_matches('/').to_owned(), token }
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.get_text(path)?)?)
    }

    pub(crate) fn get_text(&self, path: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.get_bytes(path, &[])?)?)
    }

    pub(crate) fn get_bytes(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Vec<u8>> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        read_response(self.authorize(request).call().with_context(|| self.no_response_message())?)
    }

    /// Sends JSON, and parses the response as JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.authorize(self.agent.post(format!("{}{path}", self.url)));
        let response = read_response(request.send_json(body).with_context(|| self.no_response_message())?)?;
        Ok(serde_json::from_slice(&response)?)
    }

    /// Sends JSON; the response has no body.
    pub(crate) fn post_without_answer(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let request = self.authorize(self.agent.post(format!("{}{path}", self.url)));
        read_response(request.send_json(body).with_context(|| self.no_response_message())?).map(drop)
    }

    /// Sends text, and returns the response unparsed.
    pub(crate) fn post_text(&self, path: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let request = self.agent.post(format!("{}{path}", self.url)).header("Content-Type", "text/plain");
        read_response(self.authorize(request).send(body).with_context(|| self.no_response_message())?)
    }

    fn authorize<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn no_response_message(&self) -> String {
        format!("no response from {}", self.url)
    }
}

/// Returns the body, or an error with the code and detail of the problem document. Prints the response's warnings.
fn read_response(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Vec<u8>> {
    let status = response.status();
    let warnings = response.headers().get_all(WARNING_HEADER).iter();
    warnings.filter_map(|warning| warning.to_str().ok()).for_each(print_warning);
    let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_vec()?;
    if status.is_success() {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let (code, detail) = (problem["code"].as_str().unwrap_or("error"), problem["detail"].as_str().unwrap_or(&text));
    bail!("{} {code}: {detail}", status.as_u16())
}
