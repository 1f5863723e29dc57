//! One short connection per call, with limits on connecting and reading.

use std::path::PathBuf;
use std::time::Duration;

use redis::{
    Client, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_respond::ToolError;

use crate::{Context, Secret, tcp};

/// Maximum duration of connecting and of each answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A Redis or Valkey server, as the executor's configuration declares it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RedisSettings {
    /// Host name or address.
    pub(super) host: String,
    /// Port. Default 6379.
    #[serde(default = "default_port")]
    pub(super) port: u16,
    /// User of the access control list; `default` if absent.
    #[serde(default)]
    pub(super) user: Option<String>,
    /// Password.
    #[serde(default)]
    pub(super) password: Option<Secret>,
    /// Whether the connection is encrypted and the server's certificate verified. Default true; `false` is for loopback
    /// and for networks that encrypt by themselves.
    #[serde(default = "default_tls")]
    pub(super) tls: bool,
    /// PEM file with the certificates that sign the server's; the public ones if absent.
    #[serde(default)]
    pub(super) ca_file: Option<PathBuf>,
}

const fn default_port() -> u16 {
    6379
}

const fn default_tls() -> bool {
    true
}

impl RedisSettings {
    pub(super) fn connect(&self, context: &Context) -> Result<Connection, ToolError> {
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(context.secrets.resolve(password)?.as_str());
        }
        let host = self.host.clone();
        let checked = tcp::resolve(&self.host, self.port)?;
        let address = if self.tls {
            crate::tls::install_provider();
            ConnectionAddr::TcpTls { host, port: self.port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(checked.ip().to_string(), checked.port())
        };
        let info = address.into_connection_info().map_err(|error| self.error(&error))?.set_redis_settings(login);
        let client = match &self.ca_file {
            Some(file) if self.tls => {
                let root_cert = std::fs::read(file)
                    .map_err(|error| ToolError::Invalid(format!("ca-file {}: {error}", file.display())))?;
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
                Client::build_with_tls(info, certificates)
            }
            _ => Client::open(info),
        };
        let client = client.map_err(|error| self.error(&error))?;
        let connection = client.get_connection_with_timeout(TIMEOUT).map_err(|error| self.error(&error))?;
        connection.set_read_timeout(Some(TIMEOUT)).map_err(|error| self.error(&error))?;
        connection.set_write_timeout(Some(TIMEOUT)).map_err(|error| self.error(&error))?;
        Ok(connection)
    }

    /// Converts an error of the client library: an answer of the server is about the call, unless it is busy or starts.
    pub(super) fn error(&self, error: &RedisError) -> ToolError {
        let text = format!("Redis at {}:{}: {error}", self.host, self.port);
        if matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig) {
            return ToolError::Invalid(text);
        }
        match error.code() {
            Some("LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN") | None => ToolError::Unavailable(text),
            Some(_) => ToolError::Invalid(text),
        }
    }
}
