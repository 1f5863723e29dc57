//! The heartbeat (dead man's switch) is sent as long as samples reach the detector.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use wardroom_testing::Server;

/// Responds to requests with 200 and sends the first line of each to the receiver.
fn listener() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/alive", listener.local_addr().unwrap());
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let length = stream.read(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if sender.send(text.lines().next().unwrap_or_default().to_owned()).is_err() {
                return;
            }
        }
    });
    (url, received)
}

#[test]
fn heartbeat_is_sent_while_samples_arrive_and_stops_with_the_server() {
    let (url, received) = listener();
    let dir = tempfile::tempdir().unwrap();
    let environment = [("WARDROOM_HEARTBEAT__URL", url.as_str()), ("WARDROOM_HEARTBEAT__INTERVAL_SECONDS", "1")];
    let mut server = Server::start(dir.path(), "", &environment).unwrap();
    for _ in 0..3 {
        assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap(), "POST /alive HTTP/1.1");
    }
    let (_, metrics) = server.get("/metrics", "").unwrap();
    assert!(metrics.contains("wardroom_heartbeat_probe_arrived 1"), "{metrics}");
    let (_, samples) = server.get("/api/v1/samples", &server.responder_token).unwrap();
    assert!(!samples.contains("probe"), "the probe is visible to a tenant: {samples}");
    server.kill();
    while received.try_recv().is_ok() {}
    assert!(received.recv_timeout(Duration::from_secs(3)).is_err(), "a heartbeat without a server");
}
