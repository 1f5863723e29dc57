//! HTTP client for a running server.

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use crate::exit_code::{NoResponse, ServerError};
use crate::output::{CommandResult, print_result, print_warning};
use crate::presentation::OutputArgs;
use crate::server_tls::ServerTlsArgs;

/// Header with a warning about the request, such as rows that are not in the tables yet.
const WARNING_HEADER: &str = "wardroom-warning";

/// Rows that are asked for at once, at most.
const MAX_PAGE_ROWS: usize = 1000;

/// Maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: u64 = 1 << 30;

/// Which server, and the token for it.
#[derive(Clone, Debug, Args)]
pub struct RemoteArgs {
    /// URL of the server.
    #[arg(long, env = "WARDROOM_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Bearer token for the server.
    #[arg(long, env = "WARDROOM_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    tls: ServerTlsArgs,
}

impl RemoteArgs {
    /// Returns a client of the server; nothing is sent yet.
    pub fn client(&self) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false).tls_config(self.tls.config());
        let agent = config.build().new_agent();
        Client { agent, url: self.url.trim_end_matches('/').to_owned(), token: self.token.clone() }
    }
}

/// Which server, and how to print its response.
#[derive(Clone, Debug, Args)]
pub struct RemoteOutputArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl RemoteOutputArgs {
    /// See [`RemoteArgs::client`].
    pub fn client(&self) -> Client {
        self.remote.client()
    }

    /// Sends JSON, and prints the response, or a message in place of a table.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, path: &str, body: &Value, message: impl FnOnce(&Value) -> String) -> CommandResult {
        self.post_if(path, body, None, message)
    }

    /// The same, if what is changed still has a revision.
    ///
    /// # Errors
    /// As [`Client::get`]; status 412 if it has another one.
    pub fn post_if(
        &self,
        path: &str,
        body: &Value,
        revision: Option<u64>,
        message: impl FnOnce(&Value) -> String,
    ) -> CommandResult {
        let response = self.client().post_if(path, body, revision)?;
        print_result(&response, message(&response), &self.output)
    }
}

/// A server and the token for it.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

/// An answer of the server, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The headers `date`, `server` and `content-type` that the server sent, by name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether requests carry a token.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Returns JSON.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or with an error.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.get_with(path, &[])
    }

    /// Returns JSON. Parameters are encoded.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_with(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Value> {
        let body = self.get_bytes(path, parameters)?;
        serde_json::from_slice(&body).with_context(|| format!("the response of {}{path} is not JSON", self.url))
    }

    /// Returns text.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_text(&self, path: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.get_bytes(path, &[])?)?)
    }

    /// Returns a body, unparsed. Parameters are encoded.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_bytes(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Vec<u8>> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        self.read_response(self.authorize(request).call())
    }

    /// Returns what the server answers, also if it is an error.
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn ask(&self, path: &str) -> anyhow::Result<Answer> {
        let response = self.authorize(self.agent.get(format!("{}{path}", self.url))).call();
        let mut response = response.with_context(|| self.no_response())?;
        let header = |name: &str| Some((name.to_owned(), response.headers().get(name)?.to_str().ok()?.to_owned()));
        let headers = ["date", "server", "content-type"].into_iter().filter_map(header).collect();
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_vec()?;
        Ok(Answer { status, headers, body })
    }

    /// Sends JSON, and parses the response as JSON; null without a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.post_if(path, body, None)
    }

    /// The same, if what is changed still has a revision.
    ///
    /// # Errors
    /// As [`Client::get`]; status 412 if it has another one.
    pub fn post_if(&self, path: &str, body: &Value, revision: Option<u64>) -> anyhow::Result<Value> {
        let mut request = self.authorize(self.agent.post(format!("{}{path}", self.url)));
        if let Some(revision) = revision {
            request = request.header("If-Match", format!("\"{revision}\""));
        }
        json_or_null(&self.read_response(request.send_json(body))?)
    }

    /// Sends text, and returns the response unparsed.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_text(&self, path: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let request = self.agent.post(format!("{}{path}", self.url)).header("Content-Type", "text/plain");
        self.read_response(self.authorize(request).send(body))
    }

    /// Lists rows page by page, up to a number of them. Returns `{rows: […], "next": …}`; `next` is the cursor of the
    /// rows that are left, or null.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn list(&self, path: &str, rows: &str, parameters: &[(&str, String)], limit: usize) -> anyhow::Result<Value> {
        self.list_where(path, rows, parameters, limit, |_| true)
    }

    /// The same with the rows that `is_wanted`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn list_where(
        &self,
        path: &str,
        rows: &str,
        parameters: &[(&str, String)],
        limit: usize,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let (mut found, mut next) = (Vec::new(), Value::Null);
        loop {
            let mut parameters = parameters.to_vec();
            parameters.push(("limit", limit.clamp(1, MAX_PAGE_ROWS).to_string()));
            match &next {
                Value::Null => {}
                Value::String(cursor) => parameters.push(("cursor", cursor.clone())),
                cursor => parameters.push(("cursor", cursor.to_string())),
            }
            let mut page = self.get_with(path, &parameters)?;
            let following = page["next"].take();
            // A page may be empty although there are further ones.
            let is_last = following.is_null() || following == next;
            next = following;
            let items = page[rows].as_array_mut().map(std::mem::take);
            let items = items.with_context(|| format!("the response of {}{path} has no {rows}", self.url))?;
            found.extend(items.into_iter().filter(|row| is_wanted(row)));
            if is_last || found.len() >= limit {
                found.truncate(limit);
                return Ok(json!({ rows: found, "next": next }));
            }
        }
    }

    fn authorize<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn no_response(&self) -> NoResponse {
        NoResponse { url: self.url.clone() }
    }

    /// Returns the body, or an error with the code and detail of the problem document. Prints the response's warnings.
    fn read_response(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<Vec<u8>> {
        let mut response = response.with_context(|| self.no_response())?;
        let status = response.status();
        let warnings = response.headers().get_all(WARNING_HEADER).iter();
        warnings.filter_map(|warning| warning.to_str().ok()).for_each(print_warning);
        let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_vec()?;
        if status.is_success() {
            return Ok(body);
        }
        Err(server_error(status.as_u16(), &body).into())
    }
}

/// Reads the problem document of a response.
pub fn server_error(status: u16, body: &[u8]) -> ServerError {
    let text = String::from_utf8_lossy(body).into_owned();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or("error").to_owned();
    let detail = problem["detail"].as_str().map_or(text, str::to_owned);
    ServerError { status, code, detail }
}

fn json_or_null(body: &[u8]) -> anyhow::Result<Value> {
    if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(body)?) }
}
