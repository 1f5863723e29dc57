//! `wardroom config`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use wardroom_roles::config;
use wardroom_roles::executor::check_config;

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
    /// Validate a configuration file: every value, and the folders that it names.
    Check {
        /// Configuration file (YAML).
        #[arg(long)]
        config: PathBuf,
        /// Configuration file of the executor (YAML), to validate it, too.
        #[arg(long)]
        executor_config: Option<PathBuf>,
    },
    /// Print the JSON Schema of the file.
    Schema,
}

pub(crate) fn run(args: ConfigArgs) -> CommandResult {
    match args.command {
        ConfigCommand::Show { config } => {
            let config = config::load(config.as_deref())?.with_hidden_secrets();
            print_json(serde_json::to_string_pretty(&config)?)?;
        }
        ConfigCommand::Check { config, executor_config } => {
            config::load_with_folders(Some(&config))?;
            print_line(format!("{} is valid", config.display()))?;
            if let Some(file) = executor_config {
                check_config(&file)?;
                print_line(format!("{} is valid", file.display()))?;
            }
        }
        ConfigCommand::Schema => print_json(serde_json::to_string_pretty(&config::schema())?)?,
    }
    Ok(ExitCode::SUCCESS)
}
