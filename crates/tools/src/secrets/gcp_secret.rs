//! Credentials in Google Secret Manager: `gcp-secret:projects/P/secrets/S/versions/V`.
//!
//! `GET {endpoint}/v1/{name}:access` with an access token, of which `payload.data` is the value in Base64. The token is
//! that of the machine's service account, read from the instance metadata, unless the configuration has one.

use std::time::Duration;

use base64::Engine as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_respond::ToolError;

use super::credentials::Credentials;
use super::secret::Secret;
use crate::http_client::{HttpClient, HttpRequest, check_url};
use crate::target::SettingError;

/// Maximum duration of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_ENDPOINT: &str = "https://secretmanager.googleapis.com";
/// Where a machine of Google's reads the access token of its service account.
const METADATA_TOKEN: &str =
    "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";

/// Google Secret Manager.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GcpSecretsConfig {
    /// Base URL. Default `https://secretmanager.googleapis.com`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Access token, best as a file that something renews. Default: that of the machine's service account.
    #[serde(default)]
    pub access_token: Option<Secret>,
}

impl GcpSecretsConfig {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        if let Some(endpoint) = &self.endpoint {
            check_url(endpoint).map_err(|reason| SettingError::new("secrets.gcp.endpoint", reason))?;
        }
        let Some(token) = &self.access_token else { return Ok(()) };
        if token.0.starts_with("gcp-secret:") {
            let reason = "it cannot be in Secret Manager itself; use env: or file:";
            return Err(SettingError::new("secrets.gcp.access-token", reason));
        }
        token.check("secrets.gcp.access-token")
    }

    /// Reads a version of a secret.
    pub(super) fn read(
        &self,
        credentials: &dyn Credentials,
        http: &HttpClient,
        name: &str,
    ) -> Result<String, ToolError> {
        let token = match &self.access_token {
            Some(token) => credentials.resolve(token)?.as_str().to_owned(),
            None => machine_token()?,
        };
        credentials.remember(&token);
        let endpoint = self.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT).trim_end_matches('/');
        let request = HttpRequest::new("GET", format!("{endpoint}/v1/{name}:access"), TIMEOUT);
        let response = http.send(request.header("Authorization", format!("Bearer {token}")))?;
        let place = format!("gcp-secret:{name}");
        match response.status {
            200 => {}
            401 | 403 | 404 => {
                let remedy = "the service account needs roles/secretmanager.secretAccessor on it";
                return Err(ToolError::Invalid(format!("{place}: {}; {remedy}", response.status)));
            }
            status => return Err(ToolError::Unavailable(format!("{place}: Secret Manager responds with {status}"))),
        }
        let body = response.json()?;
        let invalid = || ToolError::Unavailable(format!("{place}: the response has no payload that is text"));
        let data = body["payload"]["data"].as_str().ok_or_else(invalid)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).map_err(|_| invalid())?;
        String::from_utf8(bytes).map_err(|_| invalid())
    }
}

/// Returns an access token of the machine's service account, on a machine of Google's.
pub(crate) fn machine_token() -> Result<String, ToolError> {
    let request = HttpRequest::new("GET", METADATA_TOKEN, TIMEOUT).header("Metadata-Flavor", "Google");
    let response = HttpClient::of_metadata().send(request)?;
    let token = response.json()?["access_token"].as_str().map(str::to_owned);
    token.ok_or_else(|| ToolError::Unavailable("the instance metadata has no access token".to_owned()))
}
