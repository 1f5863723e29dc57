//! Credentials in HashiCorp Vault or OpenBao: `vault:PATH#FIELD`, with the path of `vault read`.
//!
//! `GET {address}/v1/{PATH}` with `X-Vault-Token`. Version 2 of the key-value engine nests the fields in `data.data`,
//! version 1 and dynamic credentials (`database/creds/…`) have them in `data`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wardroom_respond::ToolError;

use super::credentials::Credentials;
use super::secret::{Secret, is_vault_path};
use crate::http_client::{HttpClient, HttpRequest, HttpResponse, check_url};
use crate::target::SettingError;

/// Maximum duration of one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A Vault server.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VaultConfig {
    /// Base URL, such as `https://vault.example:8200`.
    pub address: String,
    /// Namespace; none if absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// How the executor signs in.
    pub login: VaultLogin,
}

/// How the executor signs in to Vault.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum VaultLogin {
    /// With a token, best as a file that the Vault agent renews.
    Token(Secret),
    /// With an AppRole.
    #[serde(rename_all = "kebab-case")]
    AppRole {
        /// Role id.
        role_id: Secret,
        /// Secret id.
        secret_id: Secret,
        /// Path where the method is mounted. Default `approle`.
        #[serde(default = "default_mount")]
        mount: String,
    },
}

fn default_mount() -> String {
    "approle".to_owned()
}

impl VaultConfig {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        check_url(&self.address).map_err(|reason| SettingError::new("secrets.vault.address", reason))?;
        let secrets: Vec<(&str, &Secret)> = match &self.login {
            VaultLogin::Token(token) => vec![("secrets.vault.login.token", token)],
            VaultLogin::AppRole { role_id, secret_id, mount } => {
                if !is_vault_path(mount) {
                    return Err(SettingError::new("secrets.vault.login.app-role.mount", "it is not a path"));
                }
                vec![
                    ("secrets.vault.login.app-role.role-id", role_id),
                    ("secrets.vault.login.app-role.secret-id", secret_id),
                ]
            }
        };
        for (field, secret) in secrets {
            if secret.0.starts_with("vault:") {
                return Err(SettingError::new(field, "it cannot be in Vault itself; use env: or file:"));
            }
            secret.check(field)?;
        }
        Ok(())
    }

    /// Reads a field of a secret.
    pub(super) fn read(
        &self,
        credentials: &dyn Credentials,
        http: &HttpClient,
        path: &str,
        field: &str,
    ) -> Result<String, ToolError> {
        let token = self.token(credentials, http)?;
        credentials.remember(&token);
        let response = http.send(self.request("GET", path).header("X-Vault-Token", token))?;
        let place = format!("vault:{path}#{field}");
        let body = accepted(&response, &place)?;
        let data = &body["data"];
        let fields = if data["data"].is_object() && data["metadata"].is_object() { &data["data"] } else { data };
        match &fields[field] {
            Value::String(value) => Ok(value.clone()),
            Value::Number(value) => Ok(value.to_string()),
            _ => Err(ToolError::Invalid(format!("{place}: there is no such field, or it is no text"))),
        }
    }

    fn token(&self, credentials: &dyn Credentials, http: &HttpClient) -> Result<String, ToolError> {
        match &self.login {
            VaultLogin::Token(token) => Ok(credentials.resolve(token)?.as_str().to_owned()),
            VaultLogin::AppRole { role_id, secret_id, mount } => {
                let (role, secret) = (credentials.resolve(role_id)?, credentials.resolve(secret_id)?);
                let body = json!({ "role_id": role.as_str(), "secret_id": secret.as_str() });
                let response = http.send(self.request("POST", &format!("auth/{mount}/login")).json(&body))?;
                let body = accepted(&response, "the sign-in with the AppRole")?;
                let token = body["auth"]["client_token"].as_str();
                token.map(str::to_owned).ok_or_else(|| ToolError::Unavailable("Vault returned no token".to_owned()))
            }
        }
    }

    fn request(&self, method: &str, path: &str) -> HttpRequest {
        let url = format!("{}/v1/{path}", self.address.trim_end_matches('/'));
        let request = HttpRequest::new(method, url, TIMEOUT).header("X-Vault-Request", "true");
        match &self.namespace {
            Some(namespace) => request.header("X-Vault-Namespace", namespace),
            None => request,
        }
    }
}

/// Returns the body of a successful response. The errors of Vault contain no credential.
fn accepted(response: &HttpResponse, place: &str) -> Result<Value, ToolError> {
    match response.status {
        200 => response.json(),
        400 | 403 | 404 => {
            let reason = match response.status {
                403 => "permission denied: the executor's policy must allow to read it",
                404 => {
                    "not found (version 2 of the key-value engine has `data` after its mount, as in secret/data/redis)"
                }
                _ => "refused",
            };
            Err(ToolError::Invalid(format!("{place}: {reason}")))
        }
        503 => Err(ToolError::Unavailable(format!("{place}: Vault is sealed, or in maintenance"))),
        status => Err(ToolError::Unavailable(format!("{place}: Vault responds with {status}"))),
    }
}
