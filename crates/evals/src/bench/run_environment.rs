//! Commit and machine of a run, for its report.

/// Returns the abbreviated commit, with `+` if the working tree differs from it.
#[expect(clippy::disallowed_methods, reason = "the benchmark asks git for its commit")]
pub(super) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let head = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let dirty = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.trim().is_empty());
    format!("{}{}", head.trim(), if dirty { "+" } else { "" })
}

/// Returns the number of cores and the model of the processor.
pub(super) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    format!("{cores} cores, {}", model.trim_start_matches([' ', '\t', ':']))
}
