//! `cargo xtask bench …`: builds in release, unpacks the compared products and tools from Debian's packages, and runs
//! the benchmark.

use std::process::ExitCode;

use crate::client_programs::ClientPrograms;
use crate::debian_packages::{library_folder, unpack, unpack_libraries};
use crate::programs::RELEASE_PACKAGES;
use crate::steps::step;
use crate::workspace::{command, target};

/// Shared libraries of `perf` that the machine may lack.
const PERF_LIBRARIES: [&str; 14] = [
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
/// Programs: environment variable, package, file.
const PROGRAMS: [(&str, &str, &str); 5] = [
    ("VICTORIA_METRICS_BIN", "victoria-metrics", "usr/bin/victoria-metrics"),
    ("PROMETHEUS_BIN", "prometheus", "usr/bin/prometheus"),
    ("PERF_BIN", "linux-perf", "usr/bin/perf"),
    ("ZSTD_BIN", "zstd", "usr/bin/zstd"),
    ("RG_BIN", "ripgrep", "usr/bin/rg"),
];

/// Runs the command; all arguments are passed to `wardroom-evals bench`.
///
/// # Errors
/// Returns an error if the build fails, a package cannot be unpacked, or the benchmark fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut build = command("cargo");
    build.args(["build", "--release", "--locked"]).args(RELEASE_PACKAGES).arg("--bins");
    step("release build", &mut build)?;
    let folder = target().join("release");
    let mut bench = command(folder.join("wardroom-evals"));
    bench.arg("bench").args(arguments.raw_args()?).env("WARDROOM_BIN", folder.join("wardroom"));
    for (variable, package, file) in PROGRAMS {
        bench.env(variable, unpack(package, file)?);
    }
    unpack_libraries(&PERF_LIBRARIES)?;
    bench.env("DEBIAN_LIBRARIES", library_folder());
    // The compared OTLP collector, and the readers that check the lake's tables from outside.
    ClientPrograms::install()?.set_env(&mut bench);
    step("bench", &mut bench)?;
    Ok(ExitCode::SUCCESS)
}
