//! `wardroom config`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use wardroom_roles::executor::check_config;
use wardroom_roles::{clock, config};

use wardroom_cli::output::{CommandResult, print_document, print_json, print_line};
use wardroom_cli::presentation::OutputArgs;

/// The configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ConfigCommand {
    #[command(after_help = "Examples:\n  wardroom config show --config wardroom.yaml -o yaml")]
    /// Show the effective configuration: defaults, file, environment.
    Show {
        /// Configuration file (YAML).
        #[arg(long)]
        config: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    #[command(after_help = "\
Examples:
  wardroom config check --config wardroom.yaml
  wardroom config check --config wardroom.yaml --executor-config executor.yaml --data /var/lib/wardroom")]
    /// Validate a configuration file: every value, and the folders and certificates that it names.
    Check {
        /// Configuration file (YAML).
        #[arg(long)]
        config: PathBuf,
        /// Configuration file of the executor (YAML), to validate it, too.
        #[arg(long)]
        executor_config: Option<PathBuf>,
        /// The data folder, to check that it can be used with this file.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    #[command(after_help = "Example:\n  wardroom config schema > schema.json")]
    /// Print the JSON Schema of the file.
    Schema,
}

pub(crate) fn run(args: ConfigArgs) -> CommandResult {
    match args.command {
        ConfigCommand::Show { config, output } => {
            let config = config::load(config.as_deref())?.with_hidden_secrets();
            if output.is_document() {
                print_document(&serde_json::to_value(&config)?, &output.presentation())?;
            } else {
                print_json(serde_json::to_string_pretty(&config)?)?;
            }
        }
        ConfigCommand::Check { config, executor_config, data } => {
            let checked = config::load_with_folders(Some(&config))?;
            checked.check_certificates(clock::now()).map_err(|problems| anyhow::anyhow!(problems.join("\n  ")))?;
            if let Some(data) = data {
                checked.check_data_folder(&data).map_err(|problems| anyhow::anyhow!(problems.join("\n  ")))?;
            }
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
