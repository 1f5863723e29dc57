//! CPU and memory of a tree of processes, from /proc.

use std::collections::BTreeMap;

/// What a tree has used and holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_kib: f64,
}

/// Adds up a process and all its descendants.
pub(crate) fn usage(root: u32) -> Usage {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        // Fields 4 (parent), 14 and 15 (utime, stime in ticks of 10 ms), 24 (RSS in pages) of proc(5).
        let own = Usage { cpu_s: (number(11) + number(12)) / 100.0, rss_kib: number(21) * 4.0 };
        all.insert(pid, (number(1) as u32, own));
    }
    let mut sum = Usage::default();
    for (pid, (_, own)) in &all {
        let mut at = *pid;
        while at != root && at > 1 {
            at = all.get(&at).map_or(0, |(parent, _)| *parent);
        }
        if at == root {
            sum.cpu_s += own.cpu_s;
            sum.rss_kib += own.rss_kib;
        }
    }
    sum
}

/// The commit that is measured, with `+` if the tree differs from it.
#[expect(clippy::disallowed_methods, reason = "the benchmark asks git")]
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let head = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let dirty = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.trim().is_empty());
    format!("{}{}", head.trim(), if dirty { "+" } else { "" })
}

/// The machine in a line.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    format!("{cores} cores, {}", model.trim_start_matches([' ', '\t', ':']))
}
