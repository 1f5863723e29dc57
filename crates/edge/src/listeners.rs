//! Listeners besides the main one.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Default port of OTLP over gRPC.
const OTLP_GRPC_PORT: u16 = 4317;

/// Binds the listener for OTLP over gRPC as configured (`auto`, `off` or an address) and adds it to `listeners`.
/// Returns the bound address or the reason why there is none. With `auto`, a port in use is not an error.
///
/// # Errors
/// Returns an error if the setting is not valid or a configured address cannot be bound.
pub async fn bind_otlp_grpc_listener(
    setting: &str,
    main: SocketAddr,
    listeners: &mut Vec<TcpListener>,
) -> std::io::Result<String> {
    let address = match setting {
        "off" => return Ok("off".to_owned()),
        "auto" if main.port() == 0 => return Ok("off: --listen has port 0".to_owned()),
        "auto" => SocketAddr::new(main.ip(), OTLP_GRPC_PORT),
        other => other.parse().map_err(|_| {
            Error::new(ErrorKind::InvalidInput, format!("{other:?} is neither auto, off nor ADDRESS:PORT"))
        })?,
    };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            let bound = listener.local_addr()?;
            listeners.push(listener);
            Ok(bound.to_string())
        }
        Err(error) if setting == "auto" => {
            tracing::warn!(%address, %error, "binding the OTLP gRPC port failed; the main port accepts OTLP over gRPC");
            Ok(format!("{address}: {error}"))
        }
        Err(error) => Err(Error::new(error.kind(), format!("{address}: {error}"))),
    }
}
