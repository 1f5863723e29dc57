//! `wardroom policy`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_roles::config::PolicyRules;
use wardroom_roles::policy::SCHEMA;

use wardroom_cli::autonomy::{self, AcceptArgs, AutonomyArgs};
use wardroom_cli::output::{CommandResult, print_document, print_line, print_result};
use wardroom_cli::policy_remote::{ServerPolicyArgs, show_policy};
use wardroom_cli::presentation::OutputArgs;

/// Policy: show and check the rules, ask them in situations, list and accept what actions have earned.
#[derive(Clone, Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum PolicyCommand {
    #[command(after_help = "\
Examples:
  wardroom policy show --config wardroom.yaml
  wardroom policy show --server -o json | jq -r .policy_sha256")]
    /// Print the rules in force: those of a configuration, or those of a server.
    Show(ShowArgs),
    #[command(after_help = "Example:\n  wardroom policy schema")]
    /// Print what rules may refer to.
    Schema,
    #[command(after_help = "Example:\n  wardroom policy lint rules.cedar")]
    /// Report errors, and rules that have no effect; exit code 1 if there are any.
    Lint(LintArgs),
    #[command(after_help = "Example:\n  wardroom policy test situations.yaml --config wardroom.yaml")]
    /// Ask the rules in situations with an expected answer; exit code 1 if one differs.
    Test(SituationArgs),
    #[command(after_help = "Example:\n  wardroom policy explain situations.yaml rules.cedar -o yaml")]
    /// Ask the rules in situations, and print answers, rules and reasons.
    Explain(SituationArgs),
    #[command(after_help = "Example:\n  wardroom policy autonomy -o wide")]
    /// List what each action has earned for each cause, and the offers.
    Autonomy(AutonomyArgs),
    #[command(after_help = "Example:\n  wardroom policy accept connection-leak process restart --level night")]
    /// Accept an offer, or take autonomy back with --level ask.
    Accept(AcceptArgs),
}

#[derive(Clone, Debug, Args)]
struct RulesArgs {
    /// File of rules, in place of the one that the configuration names.
    file: Option<PathBuf>,
    /// Configuration file: rules, time windows, change freezes and declared targets.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    server: ServerPolicyArgs,
}

#[derive(Clone, Debug, Args)]
struct LintArgs {
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
struct SituationArgs {
    /// YAML file of situations.
    situations: PathBuf,
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: PolicyArgs) -> CommandResult {
    match args.command {
        PolicyCommand::Show(args) if args.server.server => return show_policy(&args.server),
        PolicyCommand::Show(args) => print_line(args.rules.read()?.text.trim_end())?,
        PolicyCommand::Schema => print_line(SCHEMA.trim_end())?,
        PolicyCommand::Lint(args) => return lint(&args),
        PolicyCommand::Test(args) => return ask(&args, true),
        PolicyCommand::Explain(args) => return ask(&args, false),
        PolicyCommand::Autonomy(args) => return autonomy::list(&args),
        PolicyCommand::Accept(args) => return autonomy::accept(args),
    }
    Ok(ExitCode::SUCCESS)
}

fn lint(args: &LintArgs) -> CommandResult {
    let rules = args.rules.read()?;
    let findings = rules.lint().map_err(|error| anyhow!(error))?;
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let message = if texts.is_empty() { format!("{}: no findings", rules.name) } else { texts.join("\n") };
    print_result(&json!({ "rules": rules.name, "findings": texts }), message, &args.output)?;
    Ok(if texts.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks the rules in each situation. With `is_test`, prints what is not as expected.
fn ask(args: &SituationArgs, is_test: bool) -> CommandResult {
    let report = args.rules.read()?.ask(&args.situations).map_err(|error| anyhow!(error))?;
    if args.output.is_document() {
        print_document(&serde_json::to_value(&report)?, &args.output.presentation())?;
    } else {
        for outcome in report.outcomes.iter().filter(|outcome| !is_test || !outcome.ok) {
            print_line(outcome)?;
        }
        if is_test {
            print_line(format!("{} situations, {} not as expected", report.outcomes.len(), report.failed))?;
        }
    }
    Ok(if is_test && report.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl RulesArgs {
    fn read(&self) -> anyhow::Result<PolicyRules> {
        PolicyRules::read(self.file.as_deref(), self.config.as_deref()).map_err(|error| anyhow!(error))
    }
}
