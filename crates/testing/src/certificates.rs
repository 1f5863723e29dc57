//! Certificates, made by the program `openssl`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::server::command;

/// The extensions of authorities, servers and clients.
const EXTENSIONS: &str = "\
[req]
distinguished_name = subject
prompt = no
[subject]
CN = replaced by -subj
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1,DNS:localhost
[client]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = clientAuth
";
/// Validity of every certificate, in days.
const DAYS: &str = "30";

/// An authority with its own certificate.
#[derive(Clone, Debug)]
pub struct TestAuthority {
    /// File with its certificate.
    pub certificate: PathBuf,
    key: PathBuf,
    extensions: PathBuf,
}

impl TestAuthority {
    /// Creates an authority; its files are in `dir`.
    ///
    /// # Errors
    /// Returns an error if `openssl` is missing or fails.
    pub fn new(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        let authority = Self { certificate: file("pem"), key: file("key"), extensions: file("cnf") };
        std::fs::write(&authority.extensions, EXTENSIONS)?;
        authority.make("authority", name, &authority.certificate, &authority.key, &[])?;
        Ok(authority)
    }

    /// Issues a certificate for a server on 127.0.0.1 and localhost, with its key (mode 0600).
    ///
    /// # Errors
    /// Returns an error if `openssl` fails.
    pub fn issue_server(&self, certificate: &Path, key: &Path) -> anyhow::Result<()> {
        self.issue("server", certificate, key)
    }

    /// Issues a certificate for a client.
    ///
    /// # Errors
    /// Returns an error if `openssl` fails.
    pub fn issue_client(&self, certificate: &Path, key: &Path) -> anyhow::Result<()> {
        self.issue("client", certificate, key)
    }

    /// Makes both files beside their places and renames them, the certificate first, as programs that renew do.
    fn issue(&self, kind: &str, certificate: &Path, key: &Path) -> anyhow::Result<()> {
        let (new_certificate, new_key) = (certificate.with_extension("new"), key.with_extension("new-key"));
        let issuer = [Path::new("-CA"), &self.certificate, Path::new("-CAkey"), &self.key];
        self.make(kind, kind, &new_certificate, &new_key, &issuer)?;
        std::fs::rename(new_certificate, certificate)?;
        Ok(std::fs::rename(new_key, key)?)
    }

    fn make(&self, kind: &str, name: &str, certificate: &Path, key: &Path, issuer: &[&Path]) -> anyhow::Result<()> {
        let subject = format!("/CN={name}");
        let output = command(Path::new("openssl"))
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                DAYS,
            ])
            .args(["-subj", &subject, "-extensions", kind, "-config"])
            .arg(&self.extensions)
            .arg("-keyout")
            .arg(key)
            .arg("-out")
            .arg(certificate)
            .args(issuer)
            .output()
            .context("openssl")?;
        if !output.status.success() {
            bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
