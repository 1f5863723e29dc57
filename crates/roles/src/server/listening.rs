//! Binds the listeners.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;
use wardroom_edge::bind_otlp_grpc_listener;

use super::serve_error::{ServeError, io_error};

/// Bound listeners.
pub(super) struct Listeners {
    pub(super) listeners: Vec<TcpListener>,
    /// Address of the HTTP listener.
    pub(super) address: SocketAddr,
    /// Where OTLP over gRPC is accepted, for the readiness document.
    pub(super) otlp_grpc: String,
}

/// Binds the HTTP listener and, depending on `edge.otlp-grpc`, one for OTLP over gRPC. From now on connections are
/// accepted by the operating system and wait until they are served.
///
/// # Errors
/// Returns an error if an address cannot be bound.
pub(super) async fn bind_listeners(listen_address: SocketAddr, otlp_grpc: &str) -> Result<Listeners, ServeError> {
    let listener = TcpListener::bind(listen_address)
        .await
        .map_err(|error| io_error(format!("listen on {listen_address}"), with_remedy(error, "--listen")))?;
    let address = listener.local_addr().map_err(|error| io_error("listen", error))?;
    let mut listeners = vec![listener];
    let otlp_grpc = bind_otlp_grpc_listener(otlp_grpc, listen_address, &mut listeners).await;
    let otlp_grpc =
        otlp_grpc.map_err(|error| io_error("listen (edge.otlp-grpc)", with_remedy(error, "edge.otlp-grpc")))?;
    Ok(Listeners { listeners, address, otlp_grpc })
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
            let error = bind_listeners(listen, &otlp_grpc).await.err().unwrap().to_string();
            assert!(error.contains(&in_use.to_string()) && error.contains("in use"), "{error}");
            assert!(error.contains("choose another port") && error.contains(setting), "{error}");
        }
    }
}
