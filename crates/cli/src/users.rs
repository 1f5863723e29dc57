//! `wardroom users`: people who may enter a server.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::RemoteOutputArgs;
use crate::columns::Column;
use crate::output::{CommandResult, print_rows};

/// Users: people who may enter a server. For administrators.
#[derive(Clone, Debug, Args)]
pub struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum UsersCommand {
    /// List users.
    #[command(after_help = "Example:\n  wardroom users list -o wide")]
    List {
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Create a user.
    #[command(after_help = "\
Examples:
  wardroom users create alice --role responder
  wardroom users create bob --role viewer --password-file -")]
    Create {
        /// Name in plans and in the audit log.
        principal: String,
        /// viewer, responder, admin, or a role of `identity.roles`.
        #[arg(long)]
        role: String,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Change the role or the password of a user; in force within a second.
    #[command(after_help = "Example:\n  wardroom users change alice --role admin")]
    Change {
        /// Name of the user.
        principal: String,
        /// The new role.
        #[arg(long, required_unless_present = "password_file")]
        role: Option<String>,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Let a user enter again.
    #[command(after_help = "Example:\n  wardroom users enable alice")]
    Enable(UserArgs),
    /// Let a user enter no more, and end all their sessions.
    #[command(after_help = "Example:\n  wardroom users disable alice")]
    Disable(UserArgs),
    /// End all sessions of a user.
    #[command(after_help = "Example:\n  wardroom users end-sessions alice")]
    EndSessions(UserArgs),
}

#[derive(Clone, Debug, Args)]
struct UserArgs {
    /// Name of the user.
    principal: String,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

#[derive(Clone, Debug, Args)]
struct PasswordArgs {
    /// File whose first line is the password, for reading only; - reads it from standard input. An argument would be
    /// visible to other users of this machine.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArgs {
    fn read(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.password_file else { return Ok(None) };
        let text = if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(file)
        };
        let text = text.with_context(|| format!("--password-file {}", file.display()))?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }
}

const COLUMNS: &[Column] = &[
    Column::text("PRINCIPAL", "/principal"),
    Column::text("ROLE", "/role"),
    Column::text("ENABLED", "/enabled"),
    Column::text("PASSWORD", "/has_password"),
    Column::number("PASSKEYS", "/passkeys"),
    Column::time("CREATED", "/created_at"),
];

/// Runs the command.
///
/// # Errors
/// Returns an error if the server does not answer, or does not accept it.
pub fn run(args: UsersArgs) -> CommandResult {
    match args.command {
        UsersCommand::List { remote } => {
            let users = remote.client().list("/api/v1/users", "users", &[], usize::MAX)?;
            print_rows(&users, "users", COLUMNS, &remote.output)
        }
        UsersCommand::Create { principal, role, password, remote } => {
            let body = json!({ "principal": principal, "role": role, "password": password.read()? });
            remote.post("/api/v1/users", &body, |_| format!("{principal} created"))
        }
        UsersCommand::Change { principal, role, password, remote } => {
            let body = json!({ "role": role, "password": password.read()? });
            remote.post(&format!("/api/v1/users/{principal}"), &body, |_| format!("{principal} changed"))
        }
        UsersCommand::Enable(args) => args.set_enabled(true, "may enter"),
        UsersCommand::Disable(args) => args.set_enabled(false, "may not enter any more"),
        UsersCommand::EndSessions(UserArgs { principal, remote }) => {
            let message = |response: &Value| format!("{} sessions of {principal} ended", response["ended"]);
            remote.post(&format!("/api/v1/users/{principal}/end-sessions"), &json!({}), message)
        }
    }
}

impl UserArgs {
    fn set_enabled(&self, enabled: bool, done: &str) -> CommandResult {
        let Self { principal, remote } = self;
        let body = json!({ "enabled": enabled });
        remote.post(&format!("/api/v1/users/{principal}"), &body, |_| format!("{principal} {done}"))
    }
}
