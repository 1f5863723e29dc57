//! Binds the listeners: the main one, and one for OTLP over gRPC.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::tls::{Certificates, ListenerTls, TlsConfig, TlsError};

/// Default port of OTLP over gRPC.
const OTLP_GRPC_PORT: u16 = 4317;

/// A bound socket, and whether its connections are encrypted.
#[derive(Debug)]
pub struct Listener<S = TcpListener> {
    /// The socket.
    pub socket: S,
    /// The certificate; `None` without TLS.
    pub tls: Option<Arc<ListenerTls>>,
}

impl Listener {
    /// Frees the socket from the runtime in which it was bound.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub fn into_std(self) -> std::io::Result<Listener<std::net::TcpListener>> {
        Ok(Listener { socket: self.socket.into_std()?, tls: self.tls })
    }

    /// Binds the socket to the current runtime.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub fn from_std(listener: Listener<std::net::TcpListener>) -> std::io::Result<Self> {
        Ok(Self { socket: TcpListener::from_std(listener.socket)?, tls: listener.tls })
    }
}

/// Bound listeners.
#[derive(Debug)]
pub struct Listeners {
    /// The main one first.
    pub listeners: Vec<Listener>,
    /// Address of the main one.
    pub address: SocketAddr,
    /// Where OTLP over gRPC is accepted, or why it is not, for the readiness document.
    pub otlp_grpc: String,
    /// Their certificates.
    pub certificates: Certificates,
}

impl Listeners {
    /// Returns the URL of the main listener: `http://ADDRESS` or `https://ADDRESS`.
    pub fn url(&self) -> String {
        let is_encrypted = self.listeners.first().is_some_and(|main| main.tls.is_some());
        format!("{}://{}", if is_encrypted { "https" } else { "http" }, self.address)
    }
}

/// A listener cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be bound.
    #[error("{operation}: {error}")]
    Bind {
        /// Which listener.
        operation: String,
        /// What is wrong, and a remedy.
        error: Error,
    },
    /// A certificate cannot be used.
    #[error("field {section}.{}: {}", .error.field(), .error.reason())]
    Tls {
        /// Section of the configuration.
        section: &'static str,
        /// What is wrong.
        error: TlsError,
    },
}

/// Binds the main listener and, depending on `edge.otlp-grpc`, one for OTLP over gRPC, and loads their certificates.
/// From now on connections are accepted by the operating system and wait until they are served.
///
/// # Errors
/// Returns an error if an address cannot be bound, or a certificate cannot be used.
pub async fn bind_listeners(listen_address: SocketAddr, config: &Config) -> Result<Listeners, ListenError> {
    let bind_error = |operation: String, error: Error, setting: &str| ListenError::Bind {
        operation,
        error: with_remedy(error, setting),
    };
    let main = TcpListener::bind(listen_address).await;
    let main = main.map_err(|error| bind_error(format!("listen on {listen_address}"), error, "--listen"))?;
    let address = main.local_addr();
    let address = address.map_err(|error| bind_error("listen".to_owned(), error, "--listen"))?;
    let (otlp_socket, otlp_grpc) = bind_otlp_grpc_listener(&config.otlp_grpc, listen_address)
        .await
        .map_err(|error| bind_error("listen (edge.otlp-grpc)".to_owned(), error, "edge.otlp-grpc"))?;
    let load = |name, section, settings: &TlsConfig| {
        ListenerTls::load(name, settings).map_err(|error| ListenError::Tls { section, error })
    };
    let mut listeners = vec![Listener { socket: main, tls: load("http", "edge.tls", &config.tls)? }];
    if let Some(socket) = otlp_socket {
        let (section, settings) = config.otlp_grpc_tls();
        listeners.push(Listener { socket, tls: load("otlp_grpc", section, settings)? });
    }
    let certificates = Certificates::new(listeners.iter().filter_map(|listener| listener.tls.clone()).collect());
    Ok(Listeners { listeners, address, otlp_grpc, certificates })
}

/// Binds the listener for OTLP over gRPC as configured (`auto`, `off` or an address). Returns it with its address, or
/// the reason why there is none. With `auto`, a port in use is not an error.
async fn bind_otlp_grpc_listener(setting: &str, main: SocketAddr) -> std::io::Result<(Option<TcpListener>, String)> {
    let address = match setting {
        "off" => return Ok((None, "off".to_owned())),
        "auto" if main.port() == 0 => return Ok((None, "off: --listen has port 0".to_owned())),
        "auto" => SocketAddr::new(main.ip(), OTLP_GRPC_PORT),
        other => other.parse().map_err(|_| {
            Error::new(ErrorKind::InvalidInput, format!("{other:?} is neither auto, off nor ADDRESS:PORT"))
        })?,
    };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            let bound = listener.local_addr()?;
            Ok((Some(listener), bound.to_string()))
        }
        Err(error) if setting == "auto" => {
            tracing::warn!(%address, %error, "binding the OTLP gRPC port failed; the main port accepts OTLP over gRPC");
            Ok((None, format!("{address}: {error}")))
        }
        Err(error) => Err(Error::new(error.kind(), format!("{address}: {error}"))),
    }
}

/// Adds to an error of a listener what to do about it; `setting` is where its address comes from.
fn with_remedy(error: Error, setting: &str) -> Error {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "stop the process that listens there, or choose another port",
        ErrorKind::AddrNotAvailable => "choose an address of this machine",
        ErrorKind::PermissionDenied => "choose a port from 1024 on",
        _ => return error,
    };
    Error::new(error.kind(), format!("{error}; {remedy} ({setting})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_with_a_remedy() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let in_use = other.local_addr().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        for (listen, otlp_grpc, setting) in
            [(in_use, "off".to_owned(), "--listen"), (free, in_use.to_string(), "edge.otlp-grpc")]
        {
            let config = Config { otlp_grpc, ..Config::default() };
            let error = bind_listeners(listen, &config).await.err().unwrap().to_string();
            assert!(error.contains(&in_use.to_string()) && error.contains("in use"), "{error}");
            assert!(error.contains("choose another port") && error.contains(setting), "{error}");
        }
    }

    #[tokio::test]
    async fn the_url_says_whether_connections_are_encrypted() {
        let config = Config { otlp_grpc: "off".to_owned(), ..Config::default() };
        let bound = bind_listeners("127.0.0.1:0".parse().unwrap(), &config).await.unwrap();
        assert_eq!(bound.url(), format!("http://{}", bound.address));
        let missing = TlsConfig {
            cert_file: Some("missing.pem".into()),
            key_file: Some("missing.key".into()),
            ..TlsConfig::default()
        };
        let config = Config { tls: missing, ..config };
        let error = bind_listeners("127.0.0.1:0".parse().unwrap(), &config).await.unwrap_err().to_string();
        assert!(error.starts_with("field edge.tls.cert-file: missing.pem: it cannot be read"), "{error}");
    }
}
