//! Configuration of TLS: `edge.tls`, and `edge.otlp-grpc-tls`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::ConfigProblems;

/// TLS of a listener; without files there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TlsConfig {
    /// File with the server's certificate (PEM), followed by those of intermediate authorities. It is read again when
    /// it changes. Default: none, connections are not encrypted. Since 0.2.
    pub cert_file: Option<PathBuf>,
    /// File with the certificate's private key (PEM, without a passphrase), which no other user may read. Default:
    /// none. Since 0.2.
    pub key_file: Option<PathBuf>,
    /// File with the authorities (PEM) of clients: every client must then have a certificate of one of them, besides
    /// its token. Default: none, clients need no certificate. Since 0.2.
    pub client_ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// Whether connections are encrypted.
    pub const fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Adds what is wrong with the values; `field` is the name of this section.
    pub(crate) fn check(&self, field: &str, problems: &mut ConfigProblems) {
        let key_field = format!("{field}.key-file");
        let detail = "it is needed with cert-file; name the file with the certificate's private key";
        problems.require(!self.is_on() || self.key_file.is_some(), &key_field, detail);
        let cert_field = format!("{field}.cert-file");
        let has_others = self.key_file.is_some() || self.client_ca_file.is_some();
        let detail = "it is needed with key-file and client-ca-file; name the file with the server's certificate";
        problems.require(self.is_on() || !has_others, &cert_field, detail);
    }

    /// Returns the folders from which the files are read, also after they were replaced: those that the configuration
    /// names, those of the files that they are symbolic links to, and those of links to folders beside or below them,
    /// such as `current` to `v1`, which will be one to `v2`.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let files = [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().flatten();
        let mut folders = Vec::new();
        for file in files {
            let named = std::path::absolute(file).ok();
            for path in named.into_iter().chain(file.canonicalize().ok()) {
                folders.extend(path.parent().map(PathBuf::from));
                folders.extend(path.ancestors().filter_map(holder_of_link));
            }
        }
        folders.sort();
        folders.dedup();
        folders
    }
}

/// Returns the folder of a symbolic link whose target is in it; none of links that lead elsewhere, such as `/var/run`.
fn holder_of_link(path: &Path) -> Option<PathBuf> {
    let holder = path.parent().filter(|holder| holder.parent().is_some())?;
    let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let stays = is_link && path.canonicalize().ok()?.starts_with(holder.canonicalize().ok()?);
    stays.then(|| holder.to_owned())
}
