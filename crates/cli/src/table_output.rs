//! Arguments and output of the commands whose table the server makes.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;
use wardroom_domain::{visible_csv, visible_json, visible_text};
use wardroom_process::clock;

use crate::client::{Client, RemoteArgs};
use crate::duration::parse_duration;
use crate::output::{CommandResult, stdout};

/// The format of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// A text table.
    #[value(alias = "pretty")]
    Table,
    /// The same: all columns are shown.
    Wide,
    /// A JSON array of objects.
    Json,
    /// YAML.
    Yaml,
    /// CSV with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl TableFormat {
    /// The value of the API's `format` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table | Self::Wide => "pretty",
            Self::Json | Self::Yaml => "json",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
        }
    }
}

/// A time range, and how many rows of it.
#[derive(Clone, Debug, Args)]
pub struct TimeRangeArgs {
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
    ///
    /// # Errors
    /// Returns an error if `--since` is no duration.
    pub fn parameters(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let start = clock::now().minus(parse_duration("--since", &self.since)?);
        let mut parameters = vec![("start", start.to_string()), ("limit", self.limit.to_string())];
        parameters.extend(self.until.clone().map(|until| ("end", until)));
        Ok(parameters)
    }
}

/// Which server, and the format of its table.
#[derive(Clone, Debug, Args)]
pub struct TableArgs {
    /// Output format.
    #[arg(short = 'o', long = "output", visible_alias = "format", value_enum, value_name = "FORMAT",
        default_value_t = TableFormat::Table)]
    format: TableFormat,
    /// Print JSON, as -o json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl TableArgs {
    /// The format.
    pub fn format(&self) -> TableFormat {
        if self.json { TableFormat::Json } else { self.format }
    }

    /// A client of the server.
    pub fn client(&self) -> Client {
        self.remote.client()
    }

    /// Fetches a table from the API and prints it.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or with an error.
    pub fn fetch_and_print(&self, path: &str, mut parameters: Vec<(&str, String)>) -> CommandResult {
        parameters.push(("format", self.format().as_str().to_owned()));
        self.print(&self.client().get_bytes(path, &parameters)?)
    }

    /// Prints a table that the API returned in this format. Its text comes from telemetry, so control characters are
    /// made visible, but not in CSV for a file or another program.
    ///
    /// # Errors
    /// Returns an error if stdout cannot be written.
    pub fn print(&self, table: &[u8]) -> CommandResult {
        let (mut stdout, is_terminal) = (stdout(), std::io::stdout().is_terminal());
        let text = String::from_utf8_lossy(table);
        match self.format() {
            TableFormat::Table | TableFormat::Wide => stdout.write_all(visible_text(&text).as_bytes())?,
            TableFormat::Json => writeln!(stdout, "{}", visible_json(&text))?,
            TableFormat::Yaml => {
                let rows: Value = serde_json::from_str(&text).context("the response is not JSON")?;
                write!(stdout, "---\n{}", visible_text(&serde_saphyr::to_string(&rows)?))?;
            }
            TableFormat::Csv if is_terminal => stdout.write_all(visible_csv(&text).as_bytes())?,
            TableFormat::Arrow if is_terminal => bail!("an Arrow stream is binary; redirect it to a file"),
            TableFormat::Csv | TableFormat::Arrow => stdout.write_all(table)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
