//! `wardroom config`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::configuration;
use crate::output::{CommandResult, print_json, print_line};

/// The configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ConfigCommand {
    /// Show the effective configuration: defaults, file, environment.
    Show {
        /// Configuration file (YAML).
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Validate a configuration file.
    Check {
        /// Configuration file (YAML).
        #[arg(long)]
        config: PathBuf,
    },
    /// Print the JSON Schema of the file.
    Schema,
}

pub(crate) fn run(args: ConfigArgs) -> CommandResult {
    match args.command {
        ConfigCommand::Show { config } => {
            let config = configuration::load(config.as_deref())?.with_hidden_secrets();
            print_json(serde_json::to_string_pretty(&config)?)?;
        }
        ConfigCommand::Check { config } => {
            configuration::load(Some(&config))?;
            print_line(format!("{} is valid", config.display()))?;
        }
        ConfigCommand::Schema => print_json(serde_json::to_string_pretty(&configuration::schema())?)?,
    }
    Ok(ExitCode::SUCCESS)
}
