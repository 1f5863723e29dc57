//! Certificates on disk, and connections over real sockets.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wardroom_domain::Timestamp;
use wardroom_domain::config_check::ConfigProblems;
use wardroom_testing::{TestAuthority, now_ms};

use super::{ListenerTls, TlsConfig};
use crate::auth::{AuthMode, TokenTable};
use crate::callers::Callers;
use crate::config::Config;
use crate::listeners::bind_listeners;
use crate::port::Port;
use crate::routes::{Access, Routes};

/// A folder with authorities, and the files of a server.
struct Files {
    dir: TempDir,
    settings: TlsConfig,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("server.pem"), dir.path().join("server.key"));
        TestAuthority::new(dir.path(), "first").unwrap().issue_server(&cert, &key).unwrap();
        let settings = TlsConfig { cert_file: Some(cert), key_file: Some(key), client_ca_file: None };
        Self { dir, settings }
    }

    fn authority(&self, name: &str) -> TestAuthority {
        TestAuthority::new(self.dir.path(), name).unwrap()
    }

    fn cert(&self) -> &Path {
        self.settings.cert_file.as_deref().unwrap()
    }

    fn key(&self) -> &Path {
        self.settings.key_file.as_deref().unwrap()
    }

    /// The problems of `config check`, at a time.
    fn problems(&self, now: Timestamp) -> Vec<String> {
        let mut problems = ConfigProblems::default();
        self.settings.check("edge.tls", &mut problems);
        self.settings.check_files("edge.tls", &mut problems);
        self.settings.check_validity("edge.tls", now, &mut problems);
        problems.into_lines()
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(now_ms())
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn files_that_cannot_work_are_refused_with_field_reason_and_remedy() {
    let files = Files::new();
    assert_eq!(files.problems(now()), Vec::<String>::new());
    #[track_caller]
    fn refused(files: &Files, field: &str, reason: &str) {
        let problems = files.problems(now());
        let expected = format!("field edge.tls.{field}: ");
        assert!(
            problems.len() == 1 && problems[0].starts_with(&expected) && problems[0].contains(reason),
            "{problems:?}"
        );
    }
    std::fs::set_permissions(files.key(), std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&files, "key-file", "chmod 600");
    std::fs::set_permissions(files.key(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let other = files.dir.path().join("other.key");
    files.authority("second").issue_server(&files.dir.path().join("other.pem"), &other).unwrap();
    let pair = std::fs::read(files.key()).unwrap();
    std::fs::copy(&other, files.key()).unwrap();
    refused(&files, "key-file", "it is not the key of the certificate");
    std::fs::write(files.key(), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
    refused(&files, "key-file", "it ");
    std::fs::write(files.key(), &pair).unwrap();
    let certificate = std::fs::read(files.cert()).unwrap();
    for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----\n"] {
        std::fs::write(files.cert(), text).unwrap();
        refused(&files, "cert-file", "PEM");
    }
    std::fs::write(files.cert(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    refused(&files, "cert-file", "the first certificate");
    std::fs::write(files.cert(), &certificate).unwrap();
    std::fs::rename(files.cert(), files.dir.path().join("gone")).unwrap();
    refused(&files, "cert-file", "cannot be read");
    std::fs::rename(files.dir.path().join("gone"), files.cert()).unwrap();
    let late = files.problems(now().plus(31 * DAY));
    assert!(late.len() == 1 && late[0].contains("has expired"), "{late:?}");
    let early = files.problems(now().minus(DAY));
    assert!(early.len() == 1 && early[0].contains("not valid before"), "{early:?}");
}

#[test]
fn settings_come_in_pairs() {
    let check = |cert: bool, key: bool, client_ca: bool| {
        let file = |is_set: bool| is_set.then(|| PathBuf::from("/x"));
        let settings = TlsConfig { cert_file: file(cert), key_file: file(key), client_ca_file: file(client_ca) };
        let mut problems = ConfigProblems::default();
        settings.check("edge.tls", &mut problems);
        problems.into_lines().len()
    };
    assert_eq!([check(false, false, false), check(true, true, false), check(true, true, true)], [0; 3]);
    assert_eq!([check(true, false, false), check(false, true, false), check(false, false, true)], [1; 3]);
}

/// Container platforms and ACME clients replace a symbolic link: the sandbox must contain both folders.
#[test]
fn the_folders_of_links_and_of_their_targets_are_read() {
    let files = Files::new();
    let link = files.dir.path().join("live").join("cert.pem");
    std::fs::create_dir(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(files.cert(), &link).unwrap();
    let settings = TlsConfig { cert_file: Some(link.clone()), ..files.settings.clone() };
    let folders = settings.folders();
    let real = files.dir.path().canonicalize().unwrap();
    assert!(folders.contains(&link.parent().unwrap().to_owned()) && folders.contains(&real), "{folders:?}");
    // `current` will be a link to another folder beside it; a link that leads elsewhere adds nothing.
    let (versions, elsewhere) = (files.dir.path().join("versions"), files.dir.path().join("elsewhere"));
    std::fs::create_dir_all(versions.join("v1")).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::copy(files.cert(), versions.join("v1/cert.pem")).unwrap();
    std::os::unix::fs::symlink("v1", versions.join("current")).unwrap();
    std::os::unix::fs::symlink(versions.join("v1"), elsewhere.join("run")).unwrap();
    let folders = |file: PathBuf| TlsConfig { cert_file: Some(file), ..TlsConfig::default() }.folders();
    assert!(folders(versions.join("current/cert.pem")).contains(&versions));
    assert!(!folders(elsewhere.join("run/cert.pem")).contains(&elsewhere));
}

#[test]
fn a_broken_pair_leaves_the_last_certificate_in_force() {
    let files = Files::new();
    let tls = ListenerTls::load("http", &files.settings).unwrap().unwrap();
    let before = tls.acceptor();
    let is_same = |tls: &ListenerTls| Arc::ptr_eq(tls.acceptor().config(), before.config());
    tls.reload(now());
    assert!(is_same(&tls) && tls.problem(now()).is_none(), "nothing has changed");
    let pair = (std::fs::read(files.cert()).unwrap(), std::fs::read(files.key()).unwrap());
    std::fs::write(files.cert(), "half a certificate").unwrap();
    tls.reload(now());
    let problem = tls.problem(now()).unwrap();
    assert!(is_same(&tls) && problem.contains("the last certificate stays in force"), "{problem}");
    // The key of another certificate: the first step of a replacement in two.
    let other = files.authority("second");
    let (cert, key) = (files.dir.path().join("new.pem"), files.dir.path().join("new.key"));
    other.issue_server(&cert, &key).unwrap();
    std::fs::copy(&cert, files.cert()).unwrap();
    tls.reload(now());
    assert!(is_same(&tls) && tls.problem(now()).unwrap().contains("not the key"));
    std::fs::copy(&key, files.key()).unwrap();
    tls.reload(now());
    assert!(!is_same(&tls) && tls.problem(now()).is_none(), "{:?}", tls.problem(now()));
    // An expired one is worse than the one in force.
    let current = tls.acceptor();
    std::fs::write(files.cert(), &pair.0).unwrap();
    std::fs::write(files.key(), &pair.1).unwrap();
    tls.reload(now().plus(31 * DAY));
    assert!(Arc::ptr_eq(tls.acceptor().config(), current.config()));
    assert!(tls.problem(now()).unwrap().contains("has expired"));
}

struct TestServer {
    address: SocketAddr,
    tls: Arc<ListenerTls>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

async fn serve(settings: &TlsConfig) -> TestServer {
    let config = Config { tls: settings.clone(), otlp_grpc: "off".to_owned(), ..Config::default() };
    let bound = bind_listeners("127.0.0.1:0".parse().unwrap(), &config).await.unwrap();
    assert!(bound.url().starts_with("https://"), "{}", bound.url());
    let (address, tls) = (bound.address, bound.listeners[0].tls.clone().unwrap());
    let port = Port {
        config: Arc::new(config),
        tokens: TokenTable::new(AuthMode::Off),
        callers: Callers::default(),
        on_rejection: Arc::new(|_| {}),
        now: Arc::new(|| Timestamp::from_millis(0)),
    };
    let scheme = async |headers: crate::HeaderMap| {
        headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned()
    };
    let routes = Routes::new().get("/scheme", Access::Public, scheme);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move { port.serve(bound.listeners, routes, async { stopped.await.unwrap_or_default() }).await });
    TestServer { address, tls, _stop: stop }
}

/// Makes a client that trusts some authorities, with a certificate or without.
fn client(authorities: &[&TestAuthority], own: Option<(&Path, &Path)>, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from_pem_file(&authority.certificate).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Sends a request on a new connection; returns the response.
async fn ask(address: SocketAddr, client: &TlsConnector) -> std::io::Result<String> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = client.connect(name, TcpStream::connect(address).await?).await?;
    stream.write_all(b"GET /scheme HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_certificate_is_replaced_and_the_old_authority_is_gone_after() {
    let files = Files::new();
    let (first, second) = (files.authority("trusted-first"), files.authority("trusted-second"));
    first.issue_server(files.cert(), files.key()).unwrap();
    let server = serve(&files.settings).await;
    let both = client(&[&first, &second], None, b"http/1.1");
    let only_first = client(&[&first], None, b"http/1.1");
    assert!(ask(server.address, &only_first).await.unwrap().ends_with("https"), "the scheme of the connection");
    let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (both, is_done, address) = (both.clone(), Arc::clone(&is_done), server.address);
            tokio::spawn(async move {
                let mut answered = 0;
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    let text = ask(address, &both).await.unwrap();
                    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for authority in [&second, &first, &second] {
        authority.issue_server(files.cert(), files.key()).unwrap();
        server.tls.reload(now());
        assert_eq!(server.tls.problem(now()), None);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    for task in asking {
        assert!(task.await.unwrap() > 0);
    }
    assert!(ask(server.address, &only_first).await.is_err(), "a client of the old authority is refused");
    assert!(ask(server.address, &client(&[&second], None, b"http/1.1")).await.is_ok());
}

#[tokio::test]
async fn clients_without_a_certificate_or_without_tls_are_refused() {
    let mut files = Files::new();
    let (authority, people) = (files.authority("servers"), files.authority("people"));
    authority.issue_server(files.cert(), files.key()).unwrap();
    files.settings.client_ca_file = Some(people.certificate.clone());
    let server = serve(&files.settings).await;
    let (cert, key) = (files.dir.path().join("alice.pem"), files.dir.path().join("alice.key"));
    people.issue_client(&cert, &key).unwrap();
    let alice = client(&[&authority], Some((&cert, &key)), b"http/1.1");
    assert!(ask(server.address, &alice).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(ask(server.address, &client(&[&authority], None, b"http/1.1")).await.is_err(), "no certificate");
    authority.issue_client(&cert, &key).unwrap();
    let stranger = client(&[&authority], Some((&cert, &key)), b"http/1.1");
    assert!(ask(server.address, &stranger).await.is_err(), "of another authority");
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET /scheme HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    plain.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("use https://"), "{text}");
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
}

#[tokio::test]
async fn http2_is_negotiated_and_old_versions_are_refused() {
    let files = Files::new();
    let authority = files.authority("servers");
    authority.issue_server(files.cert(), files.key()).unwrap();
    let server = serve(&files.settings).await;
    let name = || ServerName::try_from("localhost").unwrap();
    let connect = || TcpStream::connect(server.address);
    let http2 = client(&[&authority], None, b"h2").connect(name(), connect().await.unwrap()).await.unwrap();
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    // The hello of TLS 1.1 (0x0302), which has no extension that offers a newer version.
    let mut hello = vec![22, 3, 1, 0, 47, 1, 0, 0, 43, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    assert_eq!(hello.len(), 5 + 47);
    let mut old = connect().await.unwrap();
    old.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends the connection, too.
    drop(old.read_to_end(&mut answer).await);
    // 21: an alert; a handshake would be 22.
    assert!(answer.first().is_none_or(|first| *first == 21), "{answer:?}");
}
