//! CPU and memory of a process tree, from /proc.

use std::collections::BTreeMap;

/// CPU time used and memory held by a process tree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_kib: f64,
}

/// Returns the sum over a process and all its descendants.
pub(crate) fn process_tree_usage(root: u32) -> Usage {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        // Fields 4 (parent), 14 and 15 (utime, stime in ticks of 10 ms), 24 (RSS in pages) of proc(5).
        let process_usage = Usage { cpu_s: (number(11) + number(12)) / 100.0, rss_kib: number(21) * 4.0 };
        all.insert(pid, (number(1) as u32, process_usage));
    }
    let mut sum = Usage::default();
    for (pid, (_, process_usage)) in &all {
        let mut ancestor = *pid;
        while ancestor != root && ancestor > 1 {
            ancestor = all.get(&ancestor).map_or(0, |(parent, _)| *parent);
        }
        if ancestor == root {
            sum.cpu_s += process_usage.cpu_s;
            sum.rss_kib += process_usage.rss_kib;
        }
    }
    sum
}
