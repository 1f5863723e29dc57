//! What an acknowledgement means, as the kernel saw it: between the last write of a body to the bus and the
//! 2xx there is an fdatasync that succeeded.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use wardroom_testing::server::program;
use wardroom_testing::{now_ms, wire};

use crate::server;

/// What of a trace matters here.
#[derive(Debug, PartialEq)]
enum Seen {
    Written,
    Synced,
    Acknowledged,
}

/// Reads `strace -f -y`: file descriptors with their paths, calls that were interrupted in two lines.
fn read(trace: &str) -> Vec<Seen> {
    let seen = |line: &str| {
        let segment = line.contains("/data/bus/");
        let call = |name: &str| line.contains(&format!("{name}("));
        if (call("write") || call("writev") || call("pwrite64")) && segment {
            Some(Seen::Written)
        } else if (call("fdatasync") && segment || line.contains("fdatasync resumed")) && line.ends_with("= 0") {
            Some(Seen::Synced)
        } else if line.contains("HTTP/1.1 204") {
            Some(Seen::Acknowledged)
        } else {
            None
        }
    };
    trace.lines().filter_map(seen).collect()
}

#[test]
fn an_fdatasync_stands_between_every_body_and_its_answer() {
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
    // It is attached once the heartbeat of other threads shows; a request before that would go untraced.
    let attached = || Path::new(&format!("/proc/{pid}/status")).exists() && tracer(pid) != 0;
    assert!((0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        attached()
    }));
    std::thread::sleep(Duration::from_millis(500));
    for number in 0..50 {
        let series = wire::series(&[("__name__", "m"), ("n", &number.to_string())], 1.0, now_ms());
        assert_eq!(server.write(&wire::body(vec![series])).unwrap(), 204);
    }
    Command::new("kill").arg(strace.id().to_string()).status().unwrap();
    strace.wait().unwrap();
    let seen = read(&std::fs::read_to_string(&file).unwrap());
    let (mut unsynced, mut since, mut acknowledged) = (false, 0, 0);
    for event in &seen {
        match event {
            Seen::Written => unsynced = true,
            Seen::Synced => (unsynced, since) = (false, since + 1),
            Seen::Acknowledged => {
                assert!(!unsynced && since > 0, "answer {acknowledged} went out before the disk had its body");
                (since, acknowledged) = (0, acknowledged + 1);
            }
        }
    }
    assert_eq!(acknowledged, 50, "{seen:?}");
}

/// Who traces a process; 0 for nobody.
fn tracer(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or_default()
}

#[test]
fn the_reader_of_traces_tells_a_false_promise() {
    let honest = "7 write(12</d/data/bus/0.log>, \"x\", 1) = 1\n7 fdatasync(12</d/data/bus/0.log> <unfinished ...>\n\
                  8 write(3</x>, \"y\", 1) = 1\n7 <... fdatasync resumed>) = 0\n9 sendto(9<TCP>, \"HTTP/1.1 204 No\", 9) = 9\n";
    assert_eq!(read(honest), [Seen::Written, Seen::Synced, Seen::Acknowledged]);
    let failed = "7 fdatasync(12</d/data/bus/0.log>) = -1 EIO (Input/output error)\n";
    assert_eq!(read(failed), []);
}
