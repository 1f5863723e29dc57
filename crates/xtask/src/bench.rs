//! `cargo xtask bench …`: release builds, the peers out of Debian's packages, then the benchmark itself.

use std::process::ExitCode;

use crate::build::{command, step, target};
use crate::clients::Clients;
use crate::debian::{debian, libraries};

/// Libraries of the profiler that the machine need not have.
const PERF: [&str; 14] = [
    "libopencsd1",
    "libbabeltrace1",
    "libperl5.36",
    "libpython3.11",
    "libslang2",
    "libdw1",
    "libelf1",
    "libnuma1",
    "libcap2",
    "libglib2.0-0",
    "libpcre2-8-0",
    "libexpat1",
    "libunwind8",
    "libzstd1",
];

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut passed: Vec<std::ffi::OsString> = vec!["bench".into()];
    passed.extend(arguments.raw_args()?);
    let asked = |name: &str| passed.iter().any(|word| word == name);
    // The tables are looked at from outside, by readers out of Python's packages.
    let lake = passed.iter().any(|word| word == "--lake=on") || passed.windows(2).any(|pair| pair == ["--lake", "on"]);
    let (clients, read, layout) = (asked("otlp") || asked("read") || lake, asked("read"), asked("layout"));
    let mut build = command("cargo");
    build.args(["build", "--release", "--locked", "-p", "wardroom", "-p", "wardroom-evals", "--bins"]);
    step("release build", &mut build)?;
    let folder = target().join("release");
    let mut bench = command(folder.join("wardroom-evals"));
    bench.args(passed).env("WARDROOM_BIN", folder.join("wardroom"));
    bench.env("VICTORIA_METRICS_BIN", debian("victoria-metrics", "usr/bin/victoria-metrics")?);
    for library in PERF {
        debian(library, &format!("usr/share/doc/{library}"))?;
    }
    bench.env("PERF_BIN", debian("linux-perf", "usr/bin/perf")?).env("DEBIAN_LIBRARIES", libraries());
    bench.env("PROMETHEUS_BIN", debian("prometheus", "usr/bin/prometheus")?);
    if clients {
        Clients::fetch()?.tell(&mut bench);
    }
    if read {
        bench.env("ZSTD_BIN", debian("zstd", "usr/bin/zstd")?).env("RG_BIN", debian("ripgrep", "usr/bin/rg")?);
    }
    if layout {
        bench.env("VALGRIND_BIN", debian("valgrind", "usr/bin/valgrind")?);
    }
    step("bench", &mut bench)?;
    Ok(ExitCode::SUCCESS)
}
