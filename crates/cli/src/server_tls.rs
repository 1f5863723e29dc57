//! TLS to a server whose certificate is not of a public authority, or that asks for the client's own.

use std::sync::Arc;

use clap::Args;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Files for TLS to the server.
#[derive(Clone, Debug, Args)]
pub struct ServerTlsArgs {
    /// File with the certificates (PEM) of the authorities of the server; without it the public ones.
    #[arg(long, env = "WARDROOM_CA_FILE", value_name = "FILE", value_parser = read_authorities)]
    ca_file: Option<RootCerts>,
    /// File with this client's certificate (PEM), for a server that asks for one.
    #[arg(long, env = "WARDROOM_CERT_FILE", value_name = "FILE", requires = "key_file", value_parser = read_chain)]
    cert_file: Option<CertificateChain>,
    /// File with the private key (PEM) of that certificate.
    #[arg(long, env = "WARDROOM_KEY_FILE", value_name = "FILE", requires = "cert_file", value_parser = read_key)]
    key_file: Option<ClientKey>,
}

#[derive(Clone, Debug)]
struct CertificateChain(Arc<Vec<Certificate<'static>>>);

#[derive(Clone)]
struct ClientKey(Arc<PrivateKey<'static>>);

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientKey")
    }
}

impl ServerTlsArgs {
    /// Returns the settings of the HTTP client.
    pub(crate) fn config(&self) -> TlsConfig {
        let own = self.cert_file.as_ref().zip(self.key_file.as_ref());
        let own = own.map(|(chain, key)| ClientCert::new_with_certs(&chain.0, PrivateKey::to_owned(&key.0)));
        let config = TlsConfig::builder().client_cert(own);
        match &self.ca_file {
            Some(authorities) => config.root_certs(authorities.clone()).build(),
            None => config.build(),
        }
    }
}

fn read_authorities(path: &str) -> Result<RootCerts, String> {
    Ok(RootCerts::new_with_certs(&read_certificates(path)?))
}

fn read_chain(path: &str) -> Result<CertificateChain, String> {
    Ok(CertificateChain(Arc::new(read_certificates(path)?)))
}

fn read_certificates(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err("it has no certificate; PEM (-----BEGIN CERTIFICATE-----) is expected".to_owned());
    }
    Ok(certificates)
}

fn read_key(path: &str) -> Result<ClientKey, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let without = |_| "it has no private key without a passphrase; PEM is expected".to_owned();
    Ok(ClientKey(Arc::new(PrivateKey::from_pem(&pem).map_err(without)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_what_they_are_for_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("empty.pem");
        std::fs::write(&file, "nothing").unwrap();
        let path = file.to_str().unwrap();
        assert!(read_authorities(path).unwrap_err().contains("no certificate"));
        assert!(read_chain(path).unwrap_err().contains("no certificate"));
        assert!(read_key(path).unwrap_err().contains("no private key"));
        assert!(read_authorities(dir.path().join("missing").to_str().unwrap()).unwrap_err().contains("No such file"));
    }
}
