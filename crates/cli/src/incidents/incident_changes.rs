//! What a person does with an incident besides deciding about its plan.

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use crate::age::format_duration;
use crate::client::RemoteOutputArgs;
use crate::columns::Column;
use crate::duration::parse_duration;
use crate::output::{CommandResult, print_rows};

/// An incident, and on which state of it a change is based.
#[derive(Clone, Debug, Args)]
pub(super) struct ChangedArgs {
    /// Incident id, such as INC-1.
    id: String,
    /// Change it only if it still has this revision, as `incidents show -o json` prints it; exit code 6 if not.
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

impl ChangedArgs {
    /// Sends a change, and prints what was done.
    pub(super) fn send(&self, change: &str, body: &Value, done: &str) -> CommandResult {
        self.send_and(change, body, |_| format!("{} {done}", self.id))
    }

    /// Sends a change, and prints a message made of the answer.
    pub(super) fn send_and(&self, change: &str, body: &Value, message: impl FnOnce(&Value) -> String) -> CommandResult {
        let path = format!("/api/v1/incidents/{}/{change}", self.id);
        self.remote.post_if(&path, body, self.revision, message)
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct DecideArgs {
    #[command(flatten)]
    incident: ChangedArgs,
    /// Reason, for the timeline and the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl DecideArgs {
    pub(super) fn send(&self, change: &str, done: &str) -> CommandResult {
        self.incident.send(change, &json!({ "reason": self.reason }), done)
    }
}

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("owner").required(true).args(["to", "unassign"]))]
pub(super) struct AssignArgs {
    #[command(flatten)]
    incident: ChangedArgs,
    /// Who takes care of it from now on: the name of a principal.
    #[arg(long, value_name = "PRINCIPAL")]
    to: Option<String>,
    /// It is assigned to no person.
    #[arg(long)]
    unassign: bool,
}

impl AssignArgs {
    pub(super) fn send(&self) -> CommandResult {
        let done = self.to.as_ref().map_or("is assigned to no person".to_owned(), |to| format!("is assigned to {to}"));
        self.incident.send("assign", &json!({ "owner": self.to }), &done)
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct CommentArgs {
    #[command(flatten)]
    incident: ChangedArgs,
    /// The comment.
    text: String,
}

impl CommentArgs {
    pub(super) fn send(&self) -> CommandResult {
        self.incident.send("comment", &json!({ "text": self.text }), "commented")
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct MergeArgs {
    #[command(flatten)]
    incident: ChangedArgs,
    /// The incident that it is the same as.
    #[arg(long, value_name = "ID")]
    into: String,
    /// Reason, for the timeline and the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl MergeArgs {
    pub(super) fn send(&self) -> CommandResult {
        let body = json!({ "into": self.into, "reason": self.reason });
        self.incident.send("merge", &body, &format!("is merged into {}", self.into))
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct SuppressArgs {
    #[command(flatten)]
    incident: ChangedArgs,
    /// For how long, such as 30m or 4h; whole minutes.
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    duration: String,
    /// Reason, for the timeline and the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl SuppressArgs {
    pub(super) fn send(&self) -> CommandResult {
        let duration = parse_duration("--for", &self.duration)?;
        let minutes = duration.as_secs() / 60;
        anyhow::ensure!(minutes > 0, "--for: {:?} is less than a minute", self.duration);
        let body = json!({ "minutes": minutes, "reason": self.reason });
        self.incident.send("suppress", &body, &format!("sends no messages for {}", format_duration(duration)))
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct HistoryArgs {
    /// Incident id, such as INC-1.
    id: String,
    /// Maximum number of entries.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

const HISTORY_COLUMNS: &[Column] = &[
    Column::time("AT", "/at"),
    Column::text("BY", "/by"),
    Column::text("KIND", "/kind"),
    Column::text("FROM", "/from").wide(),
    Column::text("TO", "/to"),
    Column::text("TEXT", "/text"),
];

impl HistoryArgs {
    pub(super) fn print(&self) -> CommandResult {
        let path = format!("/api/v1/incidents/{}/history", self.id);
        let history = self.remote.client().list(&path, "history", &[], self.limit)?;
        print_rows(&history, "history", HISTORY_COLUMNS, &self.remote.output)
    }
}
