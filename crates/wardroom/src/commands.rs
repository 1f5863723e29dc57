//! The command line. Each command is one file with its arguments and a `run` function, registered below in the order
//! of the help text.

mod approver;
mod audit;
mod backup;
mod bus_new_epoch;
mod config;
mod confined_probe;
mod crash_points;
mod dead_letters;
mod doctor;
mod executor;
mod incidents;
mod lake;
mod lake_maintain;
mod lake_verify;
mod openapi;
mod policy;
mod query_worker;
mod replay;
mod restore;
mod resume;
mod samples;
mod serve;
mod server;
mod stop_all;
mod token;
mod tool_dry_run;
mod tool_runner;

use clap::{CommandFactory, Parser, Subcommand};
use wardroom_cli::completion::{self, CompletionArgs};
use wardroom_cli::exit_code::EXIT_CODES_HELP;
use wardroom_cli::man::{self, ManArgs};
use wardroom_cli::output::CommandResult;
use wardroom_cli::{ask, estate, logs, recent_changes, server_lists, sql, trace, users};

/// A self-hosted incident response agent.
///
/// Commands that ask a server take its URL and a token from --url and --token, or from WARDROOM_URL and WARDROOM_TOKEN.
#[derive(Debug, Parser)]
#[command(name = "wardroom", version, max_term_width = 100, after_help = EXIT_CODES_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Declares the subcommands: variant, type of the arguments, and the function that runs it. The help text is the doc
/// comment of that type.
macro_rules! commands {
    ($($variant:ident($arguments:ty) => $run:expr,)*) => {
        #[derive(Debug, Subcommand)]
        pub(crate) enum Command {
            $($variant($arguments),)*
        }

        impl Command {
            pub(crate) fn run(self) -> CommandResult {
                match self {
                    $(Self::$variant(arguments) => $run(arguments),)*
                }
            }
        }
    };
}

fn print_completion(args: CompletionArgs) -> CommandResult {
    completion::run(&args, Cli::command())
}

fn print_manual(args: ManArgs) -> CommandResult {
    man::run(&args, Cli::command())
}

commands! {
    Serve(serve::ServeArgs) => serve::run,
    Server(server::ServerArgs) => server::run,
    QueryWorker(query_worker::QueryWorkerArgs) => query_worker::run,
    Executor(executor::ExecutorArgs) => executor::run,
    ToolRunner(tool_runner::ToolRunnerArgs) => tool_runner::run,
    Doctor(doctor::DoctorArgs) => doctor::run,
    Incidents(incidents::IncidentsArgs) => incidents::run,
    Plans(server_lists::PlansArgs) => server_lists::list_plans,
    Anomalies(recent_changes::AnomaliesArgs) => recent_changes::list_anomalies,
    Deployments(recent_changes::DeploymentsArgs) => recent_changes::list_deployments,
    Entities(estate::EntitiesArgs) => estate::list_entities,
    Events(estate::EventsArgs) => estate::list_events,
    Signals(estate::SignalsArgs) => estate::list_signals,
    Sources(server_lists::SourcesArgs) => server_lists::run_sources,
    Sql(sql::SqlArgs) => sql::run,
    Logs(logs::LogsArgs) => logs::run,
    Trace(trace::TraceArgs) => trace::run,
    Ask(ask::AskArgs) => ask::run,
    Samples(samples::SamplesArgs) => samples::run,
    Lake(lake::LakeArgs) => lake::run,
    Replay(replay::ReplayArgs) => replay::run,
    Bus(dead_letters::BusArgs) => dead_letters::run,
    Policy(policy::PolicyArgs) => policy::run,
    Tools(tool_dry_run::ToolsArgs) => tool_dry_run::run,
    Approver(approver::ApproverArgs) => approver::run,
    StopAll(stop_all::StopAllArgs) => stop_all::run,
    Resume(resume::ResumeArgs) => resume::run,
    Audit(audit::AuditArgs) => audit::run,
    Token(token::TokenArgs) => token::run,
    Users(users::UsersArgs) => users::run,
    Whoami(server_lists::WhoamiArgs) => server_lists::show_caller,
    Config(config::ConfigArgs) => config::run,
    Backup(backup::BackupArgs) => backup::run,
    Restore(restore::RestoreArgs) => restore::run,
    Completion(CompletionArgs) => print_completion,
    Man(ManArgs) => print_manual,
    ConfinedProbe(confined_probe::ConfinedProbeArgs) => confined_probe::run,
    CrashPoints(crash_points::CrashPointsArgs) => crash_points::run,
    Openapi(openapi::OpenapiArgs) => openapi::run,
}

#[cfg(test)]
mod tests {
    use wardroom_cli::completion::CompletedShell;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_has_a_help_text() {
        fn check(command: &clap::Command, path: &str) {
            for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
                let path = format!("{path} {}", subcommand.get_name());
                assert!(subcommand.get_about().is_some(), "{path} has no help text");
                check(subcommand, &path);
            }
        }
        check(&Cli::command(), "wardroom");
    }

    #[test]
    fn every_command_that_does_something_has_examples_that_parse() {
        fn check(command: &clap::Command, path: &str) {
            let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
            subcommands.for_each(|subcommand| check(subcommand, &format!("{path} {}", subcommand.get_name())));
            if command.is_subcommand_required_set() {
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(!examples.is_empty(), "{path} has no example");
            for example in examples {
                let (_, command) = example.split_once("wardroom").unwrap_or_else(|| panic!("{path}: {example}"));
                let command = format!("wardroom{command}");
                let words = words(&command);
                assert!(command.starts_with(path), "{path}: {example}");
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{path}: {example}: {error}"));
            }
        }
        check(&Cli::command(), "wardroom");
    }

    /// The words of the first command of a line, as a shell splits them.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for character in line.chars() {
            match (quote, character) {
                (Some(open), _) if character == open => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(character);
                    word.get_or_insert_default();
                }
                (None, '|' | '>' | '<' | ')') => break,
                (None, ' ') => words.extend(word.take()),
                _ => word.get_or_insert_default().push(character),
            }
        }
        words.extend(word);
        words
    }

    /// All shells' completions come from the same definition; those of fish are the most readable.
    #[test]
    fn completions_are_reviewed() {
        let script = completion::script(CompletedShell::Fish, Cli::command());
        insta::assert_snapshot!(String::from_utf8(script).unwrap());
    }
}
