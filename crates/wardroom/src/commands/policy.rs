//! `wardroom policy`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_domain::visible_line;
use wardroom_roles::config::PolicyRules;
use wardroom_roles::policy::SCHEMA;

use crate::client::RemoteJsonArgs;
use crate::output::{CommandResult, print_json, print_line};

/// Policy: show and check the rules, ask them in situations, list and accept what actions have earned.
#[derive(Clone, Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum PolicyCommand {
    /// Print the rules in force.
    Show(RulesArgs),
    /// Print what rules may refer to.
    Schema,
    /// Report errors, and rules that have no effect; exit code 1 if there are any.
    Lint(RulesArgs),
    /// Ask the rules in situations with an expected answer; exit code 1 if one differs.
    Test(SituationArgs),
    /// Ask the rules in situations, and print answers, rules and reasons.
    Explain(SituationArgs),
    /// List what each action has earned for each cause, and the offers.
    Autonomy {
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
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
struct SituationArgs {
    /// YAML file of situations.
    situations: PathBuf,
    #[command(flatten)]
    rules: RulesArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
struct AcceptArgs {
    /// Id of the rule that names the cause.
    rule: String,
    /// The tool.
    tool: String,
    /// The operation.
    operation: String,
    /// night, automatic or ask.
    #[arg(long)]
    level: String,
    #[command(flatten)]
    remote: RemoteJsonArgs,
}

pub(crate) fn run(args: PolicyArgs) -> CommandResult {
    match args.command {
        PolicyCommand::Show(rules) => print_line(rules.read()?.text.trim_end())?,
        PolicyCommand::Schema => print_line(SCHEMA.trim_end())?,
        PolicyCommand::Lint(rules) => {
            let rules = rules.read()?;
            let findings = rules.lint().map_err(|error| anyhow!(error))?;
            findings.iter().try_for_each(print_line)?;
            if !findings.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            print_line(format!("{}: no findings", rules.name))?;
        }
        PolicyCommand::Test(args) => return ask(&args, true),
        PolicyCommand::Explain(args) => return ask(&args, false),
        PolicyCommand::Autonomy { remote } => {
            let response = remote.client().get("/api/v1/autonomy")?;
            if remote.json {
                print_json(&response)?;
                return Ok(ExitCode::SUCCESS);
            }
            for pair in response["pairs"].as_array().into_iter().flatten() {
                let text = |key: &str| visible_line(pair[key].as_str().unwrap_or_default()).into_owned();
                let action = format!("{} {}", text("tool"), text("operation"));
                let share = |key: &str| format!("{} of {}", pair[key][0], pair[key][1]);
                let offer = pair["offer"].as_str().map_or_else(String::new, |level| format!("; offer: {level}"));
                let bound = pair["lower_bound"].as_f64().unwrap_or_default();
                print_line(format!(
                    "{:28} {action:28} {:10} agreed {}, helped {}, at least {bound:.2}{offer}",
                    text("rule"),
                    text("level"),
                    share("agreed"),
                    share("helped"),
                ))?;
            }
        }
        PolicyCommand::Accept(AcceptArgs { rule, tool, operation, level, remote }) => {
            let body = json!({ "rule": rule, "tool": tool, "operation": operation, "level": level });
            let response = remote.client().post("/api/v1/autonomy", &body)?;
            remote.print(&response, &format!("{tool} {operation} for {rule}: {level}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the rules in each situation. With `is_test`, prints what is not as expected.
fn ask(args: &SituationArgs, is_test: bool) -> CommandResult {
    let report = args.rules.read()?.ask(&args.situations).map_err(|error| anyhow!(error))?;
    if args.json {
        print_json(serde_json::to_value(&report)?)?;
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
