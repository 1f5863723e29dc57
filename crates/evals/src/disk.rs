//! Bars 4b and 1f: a disk that fails, stalls or is full. Nothing is acknowledged that is not on it, the state is
//! told, and service comes back by itself.
//!
//! 4b: the kernel's answers are changed by strace on the running server. 1f: the log lies on a small file
//! system of its own (a mount namespace, no root needed), which is filled to the last byte.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use wardroom_testing::{Server, now_ms, server, wire};

use crate::strace::{Strace, server_pid};
use crate::{Options, Tally, tell};

/// What happens to the disk: a name, what strace is told, and whether requests must be refused meanwhile.
const FAULTS: [(&str, &[&str], bool); 5] = [
    ("fdatasync fails for ever", &["inject=fdatasync:error=EIO:when=3+"], true),
    ("fdatasync fails once", &["inject=fdatasync:error=EIO:when=3"], false),
    ("no space left", &["inject=write:error=ENOSPC:when=5+"], true),
    ("read-only", &["inject=write,openat:error=EROFS:when=5+"], true),
    ("a sync takes 10 s", &["inject=fdatasync:delay_enter=10000000:when=3"], false),
];

/// Service must be back this soon after the disk is.
const BACK: Duration = Duration::from_secs(10);

/// Bar 4b.
pub(crate) fn faults(options: &Options) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for (name, inject, refuses) in FAULTS {
        let dir = std::env::temp_dir().join(format!("wardroom-4b-{}-{}", std::process::id(), options.seed));
        std::fs::create_dir_all(&dir)?;
        let mutant = options.mutant.as_deref().unwrap_or_default();
        let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", mutant)])?;
        let mut oracle = Oracle::new();
        oracle.send_many(&server);
        anyhow::ensure!(oracle.acked.len() == 20, "a healthy disk takes everything");
        let strace = Strace::attach(&server, inject)?;
        let (mut refused, mut told) = (0, String::new());
        let until = Instant::now() + Duration::from_secs(if refuses { 4 } else { 13 });
        while Instant::now() < until {
            if !oracle.send(&server) {
                refused += 1;
                let (_, text) = server.get("/readyz", &server.sender)?;
                let ready: Value = serde_json::from_str(&text)?;
                told = ready["bus"].as_str().unwrap_or_default().to_owned();
            } else if refuses && refused > 1 {
                tally.faults.push(format!("{name}: acknowledged while the disk refuses"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(strace);
        if refuses && (refused == 0 || told == "ok" || told.is_empty()) {
            tally.faults.push(format!("{name}: {refused} refused, /readyz says {told:?}"));
        }
        recover(&server, &mut oracle, name, &mut tally)?;
        server.kill();
        let found = oracle.compare(&dir)?;
        tell(format!("{name}: {refused} refused ({told}), {} acknowledged, {} missing", found.acked, found.missing));
        tally.add(found);
        tally.kills += 1;
        std::fs::remove_dir_all(&dir)?;
        if options.mutant.is_some() && !tally.clean() {
            tell("caught");
            break;
        }
    }
    Ok(tally)
}

/// Bar 1f.
pub(crate) fn full(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-1f-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(dir.join("data/bus"))?;
    let mutant = options.mutant.as_deref().unwrap_or_default();
    let mount = format!("mount -t tmpfs -o size=16m none '{}' && exec \"$@\"", dir.join("data/bus").display());
    let wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    let mut server = Server::start_in(&dir, "", &[("WARDROOM_MUTANT", mutant)], &wrapper)?;
    let pid = server_pid(&server)?;
    // The small disk as the server sees it.
    let inside = Path::new("/proc").join(pid.to_string()).join("root").join(dir.strip_prefix("/")?).join("data/bus");
    let mut oracle = Oracle::new();
    oracle.send_many(&server);
    let mut tally = Tally::default();
    let filler = inside.join("filler");
    let mut file = std::fs::File::create(&filler)?;
    while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
    let (mut failing, mut late) = (None, 0);
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        match (oracle.send(&server), failing) {
            (false, None) => failing = Some(Instant::now()),
            (true, Some(_)) => late += 1,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if failing.is_none() || late > 0 {
        tally.faults.push(format!("a full disk: first refusal {failing:?}, {late} acknowledged after it"));
    }
    let (_, text) = server.get("/readyz", &server.sender)?;
    tell(format!("full: {text}"));
    drop(file);
    std::fs::remove_file(&filler)?;
    recover(&server, &mut oracle, "a full disk", &mut tally)?;
    let copied = dir.join("copy");
    std::fs::create_dir_all(copied.join("data/bus"))?;
    for entry in std::fs::read_dir(&inside)? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::copy(&path, copied.join("data/bus").join(path.file_name().context("no name")?))?;
        }
    }
    server.kill();
    tally.add(oracle.compare(&copied)?);
    tally.kills = 1;
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// The disk is well again: so must be the service, by itself.
fn recover(server: &Server, oracle: &mut Oracle, name: &str, tally: &mut Tally) -> anyhow::Result<()> {
    let started = Instant::now();
    while !oracle.send(server) {
        if started.elapsed() > BACK {
            tally.faults.push(format!("{name}: no service {BACK:?} after the disk is well"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    oracle.send_many(server);
    let (status, text) = server.get("/readyz", &server.sender)?;
    let ready: Value = serde_json::from_str(&text)?;
    if ready["bus"] != "ok" {
        tally.faults.push(format!("{name}: /readyz still says {status} {text}"));
    }
    Ok(())
}

/// Notes what was acknowledged; the content of a request is a function of its number.
struct Oracle {
    base_ms: i64,
    next: u64,
    acked: BTreeSet<u64>,
}

impl Oracle {
    fn new() -> Self {
        Self { base_ms: now_ms() - 1_800_000, next: 0, acked: BTreeSet::new() }
    }

    fn send_many(&mut self, server: &Server) {
        for _ in 0..20 {
            self.send(server);
        }
    }

    fn send(&mut self, server: &Server) -> bool {
        let id = self.next;
        self.next += 1;
        let series = wire::series(&[("__name__", "oracle")], id as f64 + 0.5, self.base_ms + id as i64);
        let taken = server.write(&wire::body(vec![series])).is_ok_and(|status| status == 204);
        if taken {
            self.acked.insert(id);
        }
        taken
    }

    fn compare(&self, dir: &Path) -> anyhow::Result<Tally> {
        let data = dir.join("data").display().to_string();
        let (code, dump) = server::run(&["samples", "dump", "--data", &data, "--match", "oracle"])?;
        anyhow::ensure!(code == Some(0), "samples dump failed");
        let mut tally = Tally { issued: self.next, acked: self.acked.len() as u64, ..Tally::default() };
        let mut found = BTreeSet::new();
        for line in dump.lines() {
            let mut words = line.rsplit(' ');
            let at: i64 = words.next().context("no time")?.parse()?;
            let value: f64 = words.next().context("no value")?.parse()?;
            let id = (at - self.base_ms) as u64;
            if id >= self.next {
                tally.spurious += 1;
            } else if value.to_bits() != (id as f64 + 0.5).to_bits() {
                tally.corrupted += 1;
            } else {
                found.insert(id);
            }
        }
        tally.missing = self.acked.difference(&found).count() as u64;
        Ok(tally)
    }
}
