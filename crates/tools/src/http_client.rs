//! The HTTP client of tools: no redirects, limited responses, and connections to addresses that were checked.
//!
//! Problem: a tool holds credentials and sits inside the network, so a request that goes elsewhere than the operator
//! declared (server-side request forgery) reads what it must not. Model: the host is always the one that the
//! configuration names, in its canonical spelling ([`check_url`]); the addresses that its name resolves to are checked
//! all together ([`address`]), and the connection is made to one of those, so a second answer of the name server
//! changes nothing; a redirect is a response like any other. Guarantee: no request to an address of instance metadata,
//! of the link or of several hosts, and none to this machine unless the configuration says so in plain words.

pub mod address;

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::config::Config;
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use wardroom_respond::ToolError;

pub use address::check_url;

/// Largest response that is read, in bytes, unless a request says otherwise.
pub const MAX_RESPONSE_BYTES: usize = 8 << 20;
/// Time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks a name up; a replacement for the system's in tests.
pub type Lookup = Arc<dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync>;

/// A client. Cloning is cheap; clones share connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    agent: ureq::Agent,
}

/// A request.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Method, such as `GET`.
    pub method: String,
    /// Whole URL.
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body; `None` sends none.
    pub body: Option<Vec<u8>>,
    /// Maximum duration, from name resolution to the last byte.
    pub timeout: Duration,
    /// Largest response, in bytes.
    pub response_bytes: usize,
}

impl HttpRequest {
    /// Creates a request without headers and body.
    pub fn new(method: &str, url: impl Into<String>, timeout: Duration) -> Self {
        let (headers, body, response_bytes) = (Vec::new(), None, MAX_RESPONSE_BYTES);
        Self { method: method.to_owned(), url: url.into(), headers, body, timeout, response_bytes }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Some(body.to_string().into_bytes());
        self.header("Content-Type", "application/json")
    }
}

/// A response, whatever its status.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Headers with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// Returns the first header of a name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    ///
    /// # Errors
    /// Returns an error if it is none.
    pub fn json(&self) -> Result<Value, ToolError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| ToolError::Unavailable(format!("the response ({}) is not JSON: {error}", self.status)))
    }

    /// Whether the status is 200 to 299.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl HttpClient {
    /// Creates a client that looks names up with the system's resolver.
    pub fn new() -> Self {
        Self::with(CheckingResolver { lookup: None, metadata: false })
    }

    /// Creates a client that looks names up with a function.
    pub fn with_lookup(lookup: Lookup) -> Self {
        Self::with(CheckingResolver { lookup: Some(lookup), metadata: false })
    }

    /// Creates a client that may read the instance metadata of a cloud, and nothing else.
    pub(crate) fn of_metadata() -> Self {
        Self::with(CheckingResolver { lookup: None, metadata: true })
    }

    fn with(resolver: CheckingResolver) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent("wardroom")
            .allow_non_standard_methods(true)
            .build();
        Self { agent: ureq::Agent::with_parts(config, DefaultConnector::default(), resolver) }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Returns [`ToolError::Invalid`] if the request cannot be sent to this address, and [`ToolError::Unavailable`] if
    /// there is no response, or one that is too large.
    pub fn send(&self, request: HttpRequest) -> Result<HttpResponse, ToolError> {
        let limit = request.response_bytes;
        let mut builder = Request::builder().method(request.method.as_str()).uri(request.url.as_str());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let invalid = |_| ToolError::Invalid("URL, method or a header is not valid in HTTP".to_owned());
        // Without a body these methods would be sent in chunks, of which there are none.
        let needs_length = matches!(request.method.as_str(), "POST" | "PUT" | "PATCH");
        let response = match request.body.or_else(|| needs_length.then(Vec::new)) {
            Some(body) => {
                let built = builder.body(body).map_err(invalid)?;
                self.agent.run(self.agent.configure_request(built).timeout_global(Some(request.timeout)).build())
            }
            None => {
                let built = builder.body(()).map_err(invalid)?;
                self.agent.run(self.agent.configure_request(built).timeout_global(Some(request.timeout)).build())
            }
        };
        let response = response.map_err(convert_error)?;
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let (status, headers) = (response.status().as_u16(), headers.collect());
        let mut body = Vec::new();
        let mut reader = response.into_body().into_reader().take(limit as u64 + 1);
        reader.read_to_end(&mut body).map_err(|error| ToolError::Unavailable(error.to_string()))?;
        if body.len() > limit {
            return Err(ToolError::Unavailable(format!("the response is larger than {limit} bytes")));
        }
        Ok(HttpResponse { status, headers, body })
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

fn convert_error(error: ureq::Error) -> ToolError {
    match error {
        ureq::Error::Other(refused) if refused.is::<address::RefusedAddress>() => {
            ToolError::Invalid(refused.to_string())
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => ToolError::Invalid("the URL is not valid".to_owned()),
        error => ToolError::Unavailable(error.to_string()),
    }
}

/// Resolves names and refuses addresses.
struct CheckingResolver {
    lookup: Option<Lookup>,
    /// Whether the addresses of instance metadata are allowed.
    metadata: bool,
}

impl std::fmt::Debug for CheckingResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckingResolver").finish_non_exhaustive()
    }
}

impl Resolver for CheckingResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let found = match &self.lookup {
            Some(lookup) => {
                let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
                let mut found = self.empty();
                lookup(host, port)?.into_iter().take(16).for_each(|address| found.push(address));
                if found.is_empty() {
                    return Err(ureq::Error::HostNotFound);
                }
                found
            }
            None => DefaultResolver::default().resolve(uri, config, timeout)?,
        };
        if !self.metadata {
            address::check(host, found.iter().map(SocketAddr::ip))
                .map_err(|refused| ureq::Error::Other(refused.into()))?;
        }
        Ok(found)
    }
}
