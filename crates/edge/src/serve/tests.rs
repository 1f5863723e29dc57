//! Connections over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use wardroom_domain::Timestamp;

use crate::auth::{AuthMode, TokenTable};
use crate::callers::Callers;
use crate::config::Config;
use crate::listeners::Listener;
use crate::port::Port;
use crate::routes::{Access, Routes};

/// How long a connection may take to do what a test expects.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

struct TestPort {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn serve(config: Config) -> TestPort {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let port = Port {
        config: Arc::new(config),
        tokens: TokenTable::new(AuthMode::Off),
        callers: Callers::default(),
        on_rejection: Arc::new(|_| {}),
        now: Arc::new(|| Timestamp::from_millis(0)),
    };
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "done"
    };
    let echo = async |body: String| body;
    let routes = Routes::new().get("/healthz", Access::Public, async || "ok").get("/slow", Access::Public, slow);
    let routes = routes.post("/echo", Access::Respond, echo).post("/ignored", Access::Respond, async || "ignored");
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap_or_default() };
        port.serve(vec![Listener { socket: listener, tls: None }], routes, stopped).await
    });
    TestPort { address, stop, ended }
}

async fn connect(port: &TestPort, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Reads until the server closes the connection.
async fn read_to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset closes the connection, too.
    let _read = tokio::time::timeout(CLOSE_TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one response and leaves the connection open.
async fn read_response(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let size = tokio::time::timeout(CLOSE_TIMEOUT, stream.read(&mut bytes)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&bytes[..size]).into_owned()
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn short_timeouts() -> Config {
    Config { header_timeout_seconds: 1, idle_timeout_seconds: 2, body_timeout_seconds: 1, ..Config::default() }
}

#[tokio::test]
async fn silent_slow_and_idle_connections_are_closed() {
    let port = serve(short_timeouts()).await;
    let silent = connect(&port, "").await;
    let half_a_head = connect(&port, "GET /healthz HTTP/1.1\r\nHo").await;
    let preface_only = connect(&port, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut idle = connect(&port, HEALTH).await;
    assert!(read_response(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut second_head = connect(&port, HEALTH).await;
    assert!(read_response(&mut second_head).await.starts_with("HTTP/1.1 200"));
    second_head.write_all(b"GET /hea").await.unwrap();
    tokio::join!(
        read_to_end(silent),
        read_to_end(half_a_head),
        read_to_end(preface_only),
        read_to_end(idle),
        read_to_end(second_head)
    );
}

#[tokio::test]
async fn a_connection_with_requests_stays_open() {
    let port = serve(short_timeouts()).await;
    let mut stream = connect(&port, "").await;
    for _ in 0..4 {
        stream.write_all(HEALTH.as_bytes()).await.unwrap();
        assert!(read_response(&mut stream).await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[tokio::test]
async fn bodies_that_never_end_get_an_answer_on_every_route() {
    let port = serve(short_timeouts()).await;
    for (path, status) in [("/echo", "503"), ("/ignored", "503"), ("/healthz", "405"), ("/nothing", "404")] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nfour");
        let text = read_to_end(connect(&port, &head).await).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {text}");
    }
    let chunked = "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n";
    let text = read_to_end(connect(&port, chunked).await).await;
    assert!(text.contains("body_timeout"), "{text}");
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nfour";
    assert!(read_to_end(connect(&port, get).await).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_body_that_was_not_read() {
    let port = serve(Config::default()).await;
    for length in [5, 60_000] {
        let mut stream = connect(&port, "").await;
        for path in ["/nothing", "/healthz", "/ignored"] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            // The response to the first ones does not wait for the body.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(&vec![b'x'; length]).await.unwrap();
            let answer = read_response(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1"), "{path} {length}: {answer}");
        }
        stream.write_all(HEALTH.as_bytes()).await.unwrap();
        assert!(read_response(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn many_idle_connections_do_not_lock_out_a_health_check() {
    let port = serve(Config { max_connections: 40, max_connections_per_address: 20, ..Config::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(connect(&port, "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n").await);
    }
    let mut health = connect(&port, HEALTH).await;
    assert!(read_response(&mut health).await.starts_with("HTTP/1.1 200"));
    let oldest = idle.remove(0);
    assert_eq!(read_to_end(oldest).await, "", "the oldest was closed");
}

#[tokio::test]
async fn shutdown_waits_for_requests_in_flight() {
    let port = serve(Config::default()).await;
    let idle = connect(&port, "").await;
    let running = connect(&port, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    port.stop.send(()).unwrap();
    let (answer, _) = tokio::join!(read_to_end(running), read_to_end(idle));
    assert!(answer.ends_with("done"), "{answer}");
    tokio::time::timeout(CLOSE_TIMEOUT, port.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn another_name_than_this_servers_is_refused_without_authentication() {
    let port = serve(Config::default()).await;
    for (host, status) in [("localhost", "200"), ("127.0.0.1:1", "200"), ("rebound.example", "403")] {
        let text = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = read_to_end(connect(&port, &text).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
    let page = "POST /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nContent-Length: 1\r\n\r\nx";
    let answer = read_to_end_or_response(&port, page).await;
    assert!(answer.contains("wrong_origin"), "{answer}");
}

async fn read_to_end_or_response(port: &TestPort, text: &str) -> String {
    read_response(&mut connect(port, text).await).await
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_answered_at_once_and_the_connection_is_used_again() {
    let port = serve(Config { max_body_bytes: 1000, ..Config::default() }).await;
    let length = 300_000;
    let head =
        |extra: &str| format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{extra}Content-Length: {length}\r\n\r\n");
    let mut stream = connect(&port, &head("")).await;
    let answer = read_response(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    stream.write_all(HEALTH.as_bytes()).await.unwrap();
    assert!(read_response(&mut stream).await.starts_with("HTTP/1.1 200"));
    let answer = read_to_end(connect(&port, &head("Expect: 100-continue\r\n")).await).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}
