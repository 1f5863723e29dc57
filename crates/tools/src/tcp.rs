//! Addresses of targets whose protocols are not HTTP: the same hosts are refused as for HTTP.

use std::net::{SocketAddr, ToSocketAddrs as _};

use wardroom_respond::ToolError;

use crate::http_client::address;

/// Resolves a host and checks all its addresses; returns the one to connect to.
///
/// # Errors
/// Returns [`ToolError::Invalid`] if an address is refused, and [`ToolError::Unavailable`] if there is none.
pub(crate) fn resolve(host: &str, port: u16) -> Result<SocketAddr, ToolError> {
    let unavailable = |reason: String| ToolError::Unavailable(format!("{host}:{port}: {reason}"));
    let found: Vec<SocketAddr> =
        (host, port).to_socket_addrs().map_err(|error| unavailable(error.to_string()))?.collect();
    address::check(host, found.iter().map(SocketAddr::ip))
        .map_err(|refused| ToolError::Invalid(refused.to_string()))?;
    found.first().copied().ok_or_else(|| unavailable("the host has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_names_for_this_machine_are_refused() {
        for host in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fd00:ec2::254", "::ffff:169.254.169.254"] {
            assert!(matches!(resolve(host, 5432), Err(ToolError::Invalid(_))), "{host}");
        }
        assert!(resolve("127.0.0.1", 5432).is_ok());
    }
}
