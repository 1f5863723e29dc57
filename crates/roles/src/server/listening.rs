//! Binds the listeners.

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

/// Binds the HTTP listener and, depending on `edge.otlp-grpc`, one for OTLP over gRPC.
///
/// # Errors
/// Returns an error if an address cannot be bound.
pub(super) async fn bind_listeners(listen_address: SocketAddr, otlp_grpc: &str) -> Result<Listeners, ServeError> {
    let listener = TcpListener::bind(listen_address)
        .await
        .map_err(|error| io_error(format!("listen on {listen_address}"), error))?;
    let address = listener.local_addr().map_err(|error| io_error("listen", error))?;
    let mut listeners = vec![listener];
    let otlp_grpc = bind_otlp_grpc_listener(otlp_grpc, listen_address, &mut listeners).await;
    let otlp_grpc = otlp_grpc.map_err(|error| io_error("listen (edge.otlp-grpc)", error))?;
    Ok(Listeners { listeners, address, otlp_grpc })
}
