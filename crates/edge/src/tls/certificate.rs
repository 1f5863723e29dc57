//! Loads a certificate with its key, and checks both.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use wardroom_domain::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::config::TlsConfig;

/// Maximum size of a file, in bytes: that of all public authorities is a fifth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Protocols over TLS, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Bits of a mode that are for others than the owner.
const OF_OTHERS: u32 = 0o077;
/// The same without reading by the group.
const OF_OTHERS_BUT_GROUP_READ: u32 = 0o037;

/// A file of a listener's TLS cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {}: {reason}", .file.display())]
pub struct TlsError {
    field: &'static str,
    file: PathBuf,
    reason: String,
}

impl TlsError {
    /// Name of the setting that names the file.
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// The setting, what is wrong with its file, and a remedy; without the path, for callers that need not know it.
    pub(super) fn without_path(&self) -> String {
        format!("{}: {}", self.field, self.reason)
    }

    /// The file, what is wrong with it, and a remedy.
    pub fn reason(&self) -> String {
        format!("{}: {}", self.file.display(), self.reason)
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// First moment.
    pub(super) from: Timestamp,
    /// Last moment.
    pub(super) until: Timestamp,
}

impl Validity {
    /// Returns why the certificate is not valid at a time.
    pub(super) fn problem_at(self, now: Timestamp) -> Option<String> {
        if now < self.from {
            Some(format!("the certificate is not valid before {}; check the clock", self.from))
        } else if now > self.until {
            Some(format!("the certificate has expired at {}; renew it", self.until))
        } else {
            None
        }
    }
}

/// What the files of a listener contain.
#[derive(Clone, Debug)]
pub(super) struct LoadedTls {
    /// For handshakes.
    pub(super) config: Arc<ServerConfig>,
    /// Of the server's own certificate.
    pub(super) validity: Validity,
}

/// Loads and checks the files of a configuration; `None` if it has none. Whether the certificate is valid now is not
/// checked: a server with an expired one still serves clients that accept it.
///
/// # Errors
/// Returns an error that names the file if it cannot be read, does not have what it is for, or the key is not the
/// certificate's.
pub(super) fn load(settings: &TlsConfig) -> Result<Option<LoadedTls>, TlsError> {
    let (Some(cert_file), Some(key_file)) = (&settings.cert_file, &settings.key_file) else { return Ok(None) };
    let chain = read_certificates("cert-file", cert_file)?;
    let in_certificate = |reason: String| TlsError { field: "cert-file", file: cert_file.clone(), reason };
    let validity = chain.first().map_or_else(|| Err("it is empty".to_owned()), read_validity);
    let validity = validity.map_err(in_certificate)?;
    let key = read_key(key_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| in_certificate(error.to_string()))?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let invalid = |reason: String| TlsError { field: "client-ca-file", file: file.clone(), reason };
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates("client-ca-file", file)? {
                roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| invalid(error.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let reason = match error {
            rustls::Error::InconsistentKeys(_) => {
                "it is not the key of the certificate in cert-file; give files that were issued together".to_owned()
            }
            other => format!("{other}; use an RSA, ECDSA (P-256, P-384) or Ed25519 key"),
        };
        TlsError { field: "key-file", file: key_file.clone(), reason }
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Some(LoadedTls { config: Arc::new(config), validity }))
}

fn read_certificates(field: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError { field, file: file.to_owned(), reason };
    let bytes = read_file(file).map_err(failed)?.1;
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| failed(format!("it is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(failed("it has no certificate; PEM (-----BEGIN CERTIFICATE-----) is expected".to_owned()));
    }
    Ok(certificates)
}

/// Reads a private key, after checking that no other user can read it. By PostgreSQL's rule a group may read a file
/// that belongs to root: so do container platforms mount secrets.
fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |reason: String| TlsError { field: "key-file", file: file.to_owned(), reason };
    let (found, bytes) = read_file(file).map_err(failed)?;
    let forbidden = if found.uid() == 0 { OF_OTHERS_BUT_GROUP_READ } else { OF_OTHERS };
    if found.mode() & forbidden != 0 {
        let mode = found.mode() & 0o777;
        return Err(failed(format!("mode is {mode:o}; it holds a private key: chmod 600 it")));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => failed("it has no private key without a passphrase; PEM is expected".to_owned()),
        _ => failed("it is not PEM".to_owned()),
    })
}

/// Reads a small file, and what the file system says of it.
fn read_file(path: &Path) -> Result<(std::fs::Metadata, Vec<u8>), String> {
    let file = File::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let size = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    let size = size.map_err(|error| format!("it cannot be read: {error}"))?;
    if size as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    Ok((found, bytes))
}

fn read_validity(certificate: &CertificateDer<'static>) -> Result<Validity, String> {
    let parsed = Certificate::from_der(certificate).map_err(|error| format!("the first certificate: {error}"))?;
    let validity = parsed.tbs_certificate.validity;
    let time = |time: x509_cert::time::Time| Timestamp::from_millis(0).plus(time.to_unix_duration());
    Ok(Validity { from: time(validity.not_before), until: time(validity.not_after) })
}
