//! Wardroom: the always-staffed war room of a production estate, in one binary.
//!
//! `wardroom serve` takes telemetry in, notices, explains, proposes, has a person approve, acts, verifies
//! and proves it. The other commands talk to a running server, or to its data folder.

#![forbid(unsafe_code)]

mod backup;
mod client;
mod commands;
mod configuration;
mod options;
mod serving;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

use options::{BusCommand, Cli, Command, LakeCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Serve(options) => serving::supervise(&options),
        Command::Server(options) => serving::serve(&options),
        Command::Executor { data, executor_config } => serving::execute(&data, &executor_config),
        Command::Token { command } => commands::token(command),
        Command::Samples { command } => commands::samples(&command),
        Command::Sql { query, answer } => commands::sql(&query, &answer),
        Command::Lake { command: Some(LakeCommand::Maintain(args)), .. } => commands::maintain(&args),
        Command::Lake { command: Some(LakeCommand::Redrive { offset, remote, json }), .. } => {
            commands::redrive(offset, &remote, json)
        }
        Command::Lake { command: None, remote, json } => commands::lake(&remote, json),
        Command::Logs { filter, time, answer } => commands::logs(&filter, &time, &answer),
        Command::Trace { id, answer } => commands::trace(&id, &answer),
        Command::Ask { name, service, error_rate, p99_ms, time, answer } => {
            let more = [
                ("service", service),
                ("error_rate", error_rate.map(|rate| rate.to_string())),
                ("p99_ms", p99_ms.map(|ms| ms.to_string())),
            ];
            commands::ask(name.as_deref(), more, &time, &answer)
        }
        Command::Replay(args) => commands::replay(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Incidents { command } => commands::incidents(command),
        Command::Bus { command: BusCommand::Dlq { command } } => commands::letters(command),
        Command::Audit { command } => commands::audit(&command),
        Command::Config { command } => commands::config(&command),
        Command::ConfinedProbe { data, paths } => serving::probe(&data, &paths),
        Command::CrashPoints => commands::crash_points(),
        Command::Openapi => commands::openapi(),
    };
    outcome.unwrap_or_else(|error| {
        commands::complain(&error);
        ExitCode::FAILURE
    })
}
