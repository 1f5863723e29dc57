//! Options of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use wardroom_edge::AuthMode;

/// Options of `wardroom serve`.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The data folder.
    pub data: PathBuf,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Whether requests are authenticated.
    pub auth: AuthMode,
    /// File for the first administrator's token; stdout without it.
    pub admin_token_file: Option<PathBuf>,
    /// Whether an executor runs beside this process.
    pub executor: bool,
    /// Whether standard input is the socket on which the supervisor passes query workers.
    pub query_workers: bool,
}
