//! `cargo xtask bench …`: release builds, the peers out of Debian's packages, then the benchmark itself.

use std::process::ExitCode;

use crate::build::{command, step, target};
use crate::clients::Clients;
use crate::debian::debian;

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut passed: Vec<std::ffi::OsString> = vec!["bench".into()];
    passed.extend(arguments.raw_args()?);
    let otlp = passed.iter().any(|word| word == "otlp");
    let mut build = command("cargo");
    build.args(["build", "--release", "--locked", "-p", "wardroom", "-p", "wardroom-evals", "--bins"]);
    step("release build", &mut build)?;
    let folder = target().join("release");
    let mut bench = command(folder.join("wardroom-evals"));
    bench.args(passed).env("WARDROOM_BIN", folder.join("wardroom"));
    bench.env("VICTORIA_METRICS_BIN", debian("victoria-metrics", "usr/bin/victoria-metrics")?);
    bench.env("PROMETHEUS_BIN", debian("prometheus", "usr/bin/prometheus")?);
    if otlp {
        Clients::fetch()?.tell(&mut bench);
    }
    step("bench", &mut bench)?;
    Ok(ExitCode::SUCCESS)
}
