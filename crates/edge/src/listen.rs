//! Ports beside the main one.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// The port that OpenTelemetry's senders try first.
const OTLP_GRPC: u16 = 4317;

/// Opens the port that OTLP senders expect; says where, or why not. An address that was asked for must be free; the usual
/// one may be somebody else's.
///
/// # Errors
/// It is neither `auto`, `off` nor an address, or the address that was asked for is taken.
pub async fn listen_otlp_grpc(
    wanted: &str,
    main: SocketAddr,
    listeners: &mut Vec<TcpListener>,
) -> std::io::Result<String> {
    let address = match wanted {
        "off" => return Ok("off".to_owned()),
        "auto" if main.port() == 0 => return Ok("off: --listen has port 0".to_owned()),
        "auto" => SocketAddr::new(main.ip(), OTLP_GRPC),
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
        Err(error) if wanted == "auto" => {
            tracing::warn!(%address, %error, "no port of its own for OTLP over gRPC; the main port takes it");
            Ok(format!("{address}: {error}"))
        }
        Err(error) => Err(Error::new(error.kind(), format!("{address}: {error}"))),
    }
}
