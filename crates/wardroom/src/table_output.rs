//! Arguments and output of the commands that print a table.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use wardroom_domain::{visible_csv, visible_json, visible_text};
use wardroom_roles::clock;

use crate::client::RemoteArgs;
use crate::duration::parse_duration;
use crate::output::{CommandResult, stdout};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// A text table.
    Pretty,
    /// A JSON array of objects.
    Json,
    /// CSV with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl TableFormat {
    /// The value of the API's `format` parameter.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TimeRangeArgs {
    /// Start of the range, as time before now, such as 1h, 30m, 7d.
    #[arg(long, default_value = "1h")]
    since: String,
    /// End of the range (RFC 3339); now by default.
    #[arg(long)]
    until: Option<String>,
    /// Maximum number of rows.
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl TimeRangeArgs {
    /// The query parameters of the API.
    pub(crate) fn parameters(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let start = clock::now().minus(parse_duration("--since", &self.since)?);
        let mut parameters = vec![("start", start.to_string()), ("limit", self.limit.to_string())];
        parameters.extend(self.until.clone().map(|until| ("end", until)));
        Ok(parameters)
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TableArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t = TableFormat::Pretty)]
    pub(crate) format: TableFormat,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

impl TableArgs {
    /// Fetches a table from the API and prints it.
    pub(crate) fn fetch_and_print(&self, path: &str, mut parameters: Vec<(&str, String)>) -> CommandResult {
        parameters.push(("format", self.format.as_str().to_owned()));
        self.print(&self.remote.client().get_bytes(path, &parameters)?)
    }

    /// Prints a table that the API returned in this format. Its text comes from telemetry, so control characters are
    /// made visible, but not in CSV for a file or another program.
    pub(crate) fn print(&self, table: &[u8]) -> CommandResult {
        let (mut stdout, is_terminal) = (stdout(), std::io::stdout().is_terminal());
        let text = String::from_utf8_lossy(table);
        match self.format {
            TableFormat::Pretty => stdout.write_all(visible_text(&text).as_bytes())?,
            TableFormat::Json => writeln!(stdout, "{}", visible_json(&text))?,
            TableFormat::Csv if is_terminal => stdout.write_all(visible_csv(&text).as_bytes())?,
            TableFormat::Arrow if is_terminal => bail!("an Arrow stream is binary; redirect it to a file"),
            TableFormat::Csv | TableFormat::Arrow => stdout.write_all(table)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
