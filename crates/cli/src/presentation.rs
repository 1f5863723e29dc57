//! How a command prints its data: the arguments, and what they mean on this terminal.

use std::io::IsTerminal;

use anstream::AutoStream;
use clap::{Args, ValueEnum};
use terminal_size::{Width, terminal_size};
use wardroom_domain::Timestamp;
use wardroom_process::clock;

/// The format of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The most important columns; on a terminal with a header, ages and colours.
    Table,
    /// All columns, with times in place of ages.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to print data.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Output format [default: table].
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", hide_possible_values = false)]
    output: Option<OutputFormat>,
    /// Print JSON, as -o json.
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// When to use colours.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorWhen::Auto, hide_default_value = true)]
    color: ColorWhen,
}

impl OutputArgs {
    /// The format.
    pub fn format(&self) -> OutputFormat {
        match (self.json, self.output) {
            (true, _) => OutputFormat::Json,
            (false, output) => output.unwrap_or(OutputFormat::Table),
        }
    }

    /// Whether the data goes to another program as it is.
    pub fn is_document(&self) -> bool {
        matches!(self.format(), OutputFormat::Json | OutputFormat::Yaml)
    }

    /// What the arguments mean on this terminal, now.
    pub fn presentation(&self) -> Presentation {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        let color = match self.color {
            ColorWhen::Auto => AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
            ColorWhen::Always => true,
            ColorWhen::Never => false,
        };
        let columns = terminal_size().map(|(Width(columns), _)| usize::from(columns)).filter(|_| is_terminal);
        Presentation {
            format: self.format(),
            is_terminal,
            has_header: is_terminal || self.output.is_some(),
            color,
            columns,
            now: clock::now(),
        }
    }
}

/// What is printed, and for whom.
#[derive(Clone, Debug)]
pub struct Presentation {
    /// The format.
    pub format: OutputFormat,
    /// Whether a person reads it.
    pub is_terminal: bool,
    /// Whether tables have a header: on a terminal, and where a table was asked for.
    pub has_header: bool,
    /// Whether to use colours.
    pub color: bool,
    /// Columns of the terminal.
    pub columns: Option<usize>,
    /// The time that ages are relative to.
    pub now: Timestamp,
}

impl Presentation {
    /// Whether times are shown as ages.
    pub fn has_ages(&self) -> bool {
        self.is_terminal && self.format == OutputFormat::Table
    }

    /// Whether columns for `-o wide` are shown.
    pub fn is_wide(&self) -> bool {
        self.format == OutputFormat::Wide
    }
}
