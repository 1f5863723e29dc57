//! The command line. Each command is one file with its arguments and a `run` function, registered below in the order
//! of the help text.

mod approver;
mod ask;
mod audit;
mod backup;
mod bus_new_epoch;
mod config;
mod confined_probe;
mod crash_points;
mod dead_letters;
mod executor;
mod incidents;
mod lake;
mod lake_maintain;
mod lake_verify;
mod logs;
mod openapi;
mod policy;
mod query_worker;
mod replay;
mod restore;
mod resume;
mod samples;
mod serve;
mod server;
mod sql;
mod stop_all;
mod token;
mod tool_dry_run;
mod tool_runner;
mod trace;

use clap::{Parser, Subcommand};

use crate::output::CommandResult;

/// A self-hosted incident response agent.
#[derive(Debug, Parser)]
#[command(name = "wardroom", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Declares the subcommands: variant, file, and type of the arguments. The help text is the doc comment of that type.
macro_rules! commands {
    ($($variant:ident: $module:ident::$arguments:ident,)*) => {
        #[derive(Debug, Subcommand)]
        pub(crate) enum Command {
            $($variant($module::$arguments),)*
        }

        impl Command {
            pub(crate) fn run(self) -> CommandResult {
                match self {
                    $(Self::$variant(arguments) => $module::run(arguments),)*
                }
            }
        }
    };
}

commands! {
    Serve: serve::ServeArgs,
    Server: server::ServerArgs,
    QueryWorker: query_worker::QueryWorkerArgs,
    Executor: executor::ExecutorArgs,
    ToolRunner: tool_runner::ToolRunnerArgs,
    Token: token::TokenArgs,
    Samples: samples::SamplesArgs,
    Sql: sql::SqlArgs,
    Logs: logs::LogsArgs,
    Trace: trace::TraceArgs,
    Ask: ask::AskArgs,
    Lake: lake::LakeArgs,
    Replay: replay::ReplayArgs,
    Backup: backup::BackupArgs,
    Restore: restore::RestoreArgs,
    Incidents: incidents::IncidentsArgs,
    Policy: policy::PolicyArgs,
    Bus: dead_letters::BusArgs,
    Approver: approver::ApproverArgs,
    StopAll: stop_all::StopAllArgs,
    Resume: resume::ResumeArgs,
    Audit: audit::AuditArgs,
    Config: config::ConfigArgs,
    ConfinedProbe: confined_probe::ConfinedProbeArgs,
    CrashPoints: crash_points::CrashPointsArgs,
    Tools: tool_dry_run::ToolsArgs,
    Openapi: openapi::OpenapiArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
}
