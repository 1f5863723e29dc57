//! One short connection per call: read only, with limits that the server enforces, too.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use wardroom_respond::ToolError;

use crate::tls::client_config;
use crate::{Context, Secret, tcp};

/// Maximum duration of establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum duration of one statement of ours, in ms; a diagnosis must not become a load.
const STATEMENT_TIMEOUT_MS: u32 = 5_000;

/// A PostgreSQL server, as the executor's configuration declares it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PostgresSettings {
    /// Host name or address.
    pub(super) host: String,
    /// Port. Default 5432.
    #[serde(default = "default_port")]
    pub(super) port: u16,
    /// Database to connect to. Default `postgres`.
    #[serde(default = "default_database")]
    pub(super) database: String,
    /// Role, with `pg_monitor` and `pg_signal_backend` and nothing else.
    pub(super) user: String,
    /// Password of the role.
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
    5432
}

const fn default_tls() -> bool {
    true
}

fn default_database() -> String {
    "postgres".to_owned()
}

impl PostgresSettings {
    /// Connects. The connection is driven by a task of the current runtime and ends with it.
    pub(super) async fn connect(&self, context: &Context) -> Result<Client, ToolError> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .hostaddr(tcp::resolve(&self.host, self.port)?.ip())
            .port(self.port)
            .dbname(&self.database)
            .user(&self.user)
            .application_name("wardroom")
            .connect_timeout(CONNECT_TIMEOUT)
            .options(format!(
                "-c default_transaction_read_only=on -c statement_timeout={STATEMENT_TIMEOUT_MS} \
                 -c lock_timeout={STATEMENT_TIMEOUT_MS} -c TimeZone=UTC -c DateStyle=ISO"
            ));
        if let Some(password) = &self.password {
            config.password(context.secrets.resolve(password)?.as_str());
        }
        if self.tls {
            config.ssl_mode(SslMode::Require);
            let tls = MakeRustlsConnect::new(client_config(self.ca_file.as_deref())?);
            let (client, connection) = config.connect(tls).await.map_err(|error| self.error(&error))?;
            tokio::spawn(connection);
            return Ok(client);
        }
        let (client, connection) = config.connect(NoTls).await.map_err(|error| self.error(&error))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Converts an error of the client library: what the server says is about the call, anything else about the
    /// connection.
    pub(super) fn error(&self, error: &tokio_postgres::Error) -> ToolError {
        if let Some(answer) = error.as_db_error() {
            let code = answer.code().code();
            // Classes 57P, 53 and 08: the server shuts down, has no resources, or lost the connection.
            let text = format!("{}: {} ({code})", self.address(), answer.message());
            return match code {
                _ if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
                    ToolError::Unavailable(text)
                }
                _ => ToolError::Invalid(text),
            };
        }
        let mut text = format!("{}: {error}", self.address());
        if let Some(source) = std::error::Error::source(error) {
            text = format!("{text}: {source}");
        }
        ToolError::Unavailable(text)
    }

    /// The server's address, for messages.
    pub(super) fn address(&self) -> String {
        format!("PostgreSQL at {}:{}", self.host, self.port)
    }
}
