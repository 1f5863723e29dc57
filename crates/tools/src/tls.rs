//! TLS of tools whose protocols are not HTTP: the server's certificate is always verified.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use wardroom_respond::ToolError;

/// Makes `ring` the provider of cryptography for libraries that ask for the process's own.
pub(crate) fn install_provider() {
    // An error says that a provider was chosen before, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Returns the client's configuration: certificates of the file, or the public ones.
///
/// # Errors
/// Returns an error if the file cannot be read or holds no certificate.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, ToolError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let invalid = |reason: String| ToolError::Invalid(format!("ca-file {}: {reason}", file.display()));
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(invalid("it has no certificate; PEM is expected".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ToolError::Invalid(format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ToolError> {
    let invalid =
        |error: rustls_pki_types::pem::Error| ToolError::Invalid(format!("ca-file {}: {error}", file.display()));
    CertificateDer::pem_file_iter(file).map_err(invalid)?.collect::<Result<_, _>>().map_err(invalid)
}
