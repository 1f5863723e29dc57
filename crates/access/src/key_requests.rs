//! Which issuers' keys requests wait for.

use tokio::sync::mpsc;

/// Issuers whose keys have to be read again.
#[derive(Debug)]
pub struct KeyRequests(pub(crate) mpsc::Receiver<String>);
