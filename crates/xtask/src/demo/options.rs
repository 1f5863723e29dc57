//! Options of `cargo xtask demo`.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::{Long, ValueExt};

use super::environment::DemoSettings;

/// Options of the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(super) settings: DemoSettings,
    pub(super) headless: bool,
    /// First and last seed of a table.
    pub(super) seeds: Option<(u64, u64)>,
    /// Seeds that run side by side.
    pub(super) jobs: usize,
    /// File of the table.
    pub(super) out: Option<PathBuf>,
    /// Folder for the report of each seed of a table.
    pub(super) reports: Option<PathBuf>,
    /// Do not approve; stop after this time.
    pub(super) withhold: Option<Duration>,
}

impl Options {
    /// Parses the rest of the command line.
    ///
    /// # Errors
    /// Returns an error for an unknown option or an invalid value.
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> anyhow::Result<Self> {
        let settings = DemoSettings { seed: 1, ..DemoSettings::default() };
        let mut options = Self { settings, jobs: 1, ..Self::default() };
        while let Some(argument) = arguments.next()? {
            let settings = &mut options.settings;
            match argument {
                Long("seed") => settings.seed = arguments.value()?.parse()?,
                Long("headless") => options.headless = true,
                Long("fault") => settings.fault = Some(arguments.value()?.string()?),
                Long("service") => settings.service = Some(arguments.value()?.string()?),
                Long("interval") => settings.interval = Some(arguments.value()?.string()?),
                Long("names-seed") => settings.names_seed = Some(arguments.value()?.parse()?),
                Long("otlp") => settings.otlp = true,
                Long("port") => settings.port = arguments.value()?.parse()?,
                Long("keep") => settings.keep = Some(std::path::absolute(arguments.value()?)?),
                Long("shop-args") => {
                    settings.shop_args = arguments.value()?.string()?.split_whitespace().map(str::to_owned).collect();
                }
                Long("withhold") => options.withhold = Some(Duration::from_secs(arguments.value()?.parse()?)),
                Long("jobs") => options.jobs = arguments.value()?.parse::<usize>()?.max(1),
                Long("out") => options.out = Some(arguments.value()?.into()),
                Long("reports") => options.reports = Some(std::path::absolute(arguments.value()?)?),
                Long("seeds") => {
                    let text = arguments.value()?.string()?;
                    let (first, last) =
                        text.split_once("..").ok_or_else(|| anyhow::anyhow!("--seeds takes a range, such as 1..30"))?;
                    options.seeds = Some((first.parse()?, last.trim_start_matches('=').parse()?));
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }
}
