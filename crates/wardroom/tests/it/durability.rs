//! Acknowledged requests are durable: strace shows a successful fdatasync between the last write to the bus and the
//! 2xx response.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use wardroom_testing::server::program;
use wardroom_testing::{now_ms, remote_write};

use crate::server;

/// A relevant system call.
#[derive(Debug, PartialEq)]
enum Event {
    Written,
    Synced,
    Acknowledged,
}

/// Parses the output of `strace -f -y`: file descriptors have paths; interrupted calls take two lines.
fn parse_trace(trace: &str) -> Vec<Event> {
    let event = |line: &str| {
        // Not the offsets of consumer groups, which are written beside the segments at any time.
        let segment = line.contains("/data/bus/") && line.contains(".seg>");
        let call = |name: &str| line.contains(&format!("{name}("));
        if (call("write") || call("writev") || call("pwrite64")) && segment {
            Some(Event::Written)
        } else if (call("fdatasync") && segment || line.contains("fdatasync resumed")) && line.ends_with("= 0") {
            Some(Event::Synced)
        } else if line.contains("HTTP/1.1 204") {
            Some(Event::Acknowledged)
        } else {
            None
        }
    };
    trace.lines().filter_map(event).collect()
}

#[test]
fn every_acknowledgement_follows_an_fdatasync() {
    let (dir, server) = server();
    let pid = server.processes().into_iter().find(|(role, _)| role == "server").unwrap().1;
    let file = dir.path().join("trace");
    let mut strace = Command::new(program("STRACE_BIN"))
        .env("LD_LIBRARY_PATH", program("DEBIAN_LIBRARIES"))
        .args(["-f", "-y", "-s", "64", "-e", "trace=write,writev,pwrite64,sendto,sendmsg,fdatasync", "-o"])
        .arg(&file)
        .args(["-p", &pid.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Requests before strace is attached would not be traced.
    let attached = || Path::new(&format!("/proc/{pid}/status")).exists() && tracer_pid(pid) != 0;
    assert!((0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        attached()
    }));
    std::thread::sleep(Duration::from_millis(500));
    for number in 0..50 {
        let series = remote_write::series(&[("__name__", "m"), ("n", &number.to_string())], 1.0, now_ms());
        assert_eq!(server.write(&remote_write::body(vec![series])).unwrap(), 204);
    }
    Command::new("kill").arg(strace.id().to_string()).status().unwrap();
    strace.wait().unwrap();
    let events = parse_trace(&std::fs::read_to_string(&file).unwrap());
    let (mut unsynced, mut syncs, mut acknowledged) = (false, 0, 0);
    for event in &events {
        match event {
            Event::Written => unsynced = true,
            Event::Synced => (unsynced, syncs) = (false, syncs + 1),
            Event::Acknowledged => {
                assert!(!unsynced && syncs > 0, "response {acknowledged} was sent before its body was synced");
                (syncs, acknowledged) = (0, acknowledged + 1);
            }
        }
    }
    assert_eq!(acknowledged, 50, "{events:?}");
}

/// Returns the pid that traces a process; 0 if there is none.
fn tracer_pid(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or_default()
}

#[test]
fn parses_interrupted_and_failed_calls() {
    let synced = "7 write(12</d/data/bus/0.seg>, \"x\", 1) = 1\n7 fdatasync(12</d/data/bus/0.seg> <unfinished ...>\n\
                  8 write(3</d/data/bus/groups/lake.new>, \"y\", 1) = 1\n7 <... fdatasync resumed>) = 0\n9 sendto(9<TCP>, \"HTTP/1.1 204 No\", 9) = 9\n";
    assert_eq!(parse_trace(synced), [Event::Written, Event::Synced, Event::Acknowledged]);
    let failed = "7 fdatasync(12</d/data/bus/0.seg>) = -1 EIO (Input/output error)\n";
    assert_eq!(parse_trace(failed), []);
}
