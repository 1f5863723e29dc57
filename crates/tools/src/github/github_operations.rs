//! What a call asks for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use wardroom_domain::ToolCall;
use wardroom_respond::{Operation, Risk, ToolError, operation, parse_arguments, read_operation};

use super::github_settings::GithubSettings;

/// Arguments that name a run of a workflow.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RunArguments {
    /// Identifier of the run, as in its URL.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    run_id: u64,
}

/// Arguments of `revert`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RevertArguments {
    /// Commit to revert: its whole hash.
    #[schemars(length(min = 40, max = 40), regex(pattern = "^[0-9a-f]{40}$"))]
    commit: String,
}

/// Arguments of `open_issue`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IssueArguments {
    /// Title.
    #[schemars(length(min = 1, max = 200))]
    title: String,
    /// Text, in Markdown.
    #[schemars(length(max = 60_000))]
    #[serde(default)]
    body: String,
    /// Labels.
    #[schemars(length(max = 10), inner(length(min = 1, max = 50)))]
    #[serde(default)]
    labels: Vec<String>,
}

/// Arguments of `disable_workflow` and `enable_workflow`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WorkflowArguments {
    /// File of the workflow, such as `deploy.yml`, or its number.
    #[schemars(length(min = 1, max = 100), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    workflow: String,
}

/// A parsed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    RerunFailed { id: u64 },
    Revert { commit: String, workflow: String, branch: String },
    OpenIssue { title: String, body: String, labels: Vec<String> },
    SetWorkflow { workflow: String, enabled: bool },
    ReadRun { id: u64 },
}

/// Returns the operations.
pub(super) fn operations() -> Vec<Operation> {
    let rerun = "run the failed jobs of a workflow's run again";
    let revert = "dispatch the workflow that reverts a commit";
    vec![
        operation::<RunArguments>("rerun_failed_jobs", rerun, Risk::Low, false),
        operation::<RevertArguments>("revert", revert, Risk::High, false),
        operation::<IssueArguments>("open_issue", "open an issue", Risk::Low, false),
        operation::<WorkflowArguments>("disable_workflow", "stop a workflow from starting", Risk::Medium, true),
        operation::<WorkflowArguments>("enable_workflow", "let a workflow start again", Risk::Medium, true),
        read_operation::<RunArguments>("run", "state of a workflow's run, with its failed jobs"),
    ]
}

impl Action {
    /// Parses a call.
    pub(super) fn of(call: &ToolCall, settings: &GithubSettings) -> Result<Self, ToolError> {
        let arguments = &call.arguments;
        let set = |enabled| {
            let WorkflowArguments { workflow } = parse_arguments(arguments)?;
            Ok::<_, ToolError>(Self::SetWorkflow { workflow, enabled })
        };
        match call.operation.as_str() {
            "rerun_failed_jobs" => Ok(Self::RerunFailed { id: parse_arguments::<RunArguments>(arguments)?.run_id }),
            "run" => Ok(Self::ReadRun { id: parse_arguments::<RunArguments>(arguments)?.run_id }),
            "revert" => {
                let RevertArguments { commit } = parse_arguments(arguments)?;
                let workflow = settings.revert_workflow.clone().ok_or_else(|| {
                    ToolError::Invalid("this target names no `revert-workflow`, which would do the revert".to_owned())
                })?;
                Ok(Self::Revert { commit, workflow, branch: settings.branch.clone() })
            }
            "open_issue" => {
                let IssueArguments { title, body, labels } = parse_arguments(arguments)?;
                Ok(Self::OpenIssue { title, body, labels })
            }
            "disable_workflow" => set(false),
            "enable_workflow" => set(true),
            other => Err(ToolError::Invalid(format!("github has no operation {other:?}"))),
        }
    }

    /// Returns the call that undoes this one, if there is one.
    pub(super) fn undo(&self, call: &ToolCall) -> Option<ToolCall> {
        let Self::SetWorkflow { workflow, enabled } = self else { return None };
        let operation = if *enabled { "disable_workflow" } else { "enable_workflow" };
        let arguments = json!({ "workflow": workflow }).as_object().cloned().unwrap_or_default();
        Some(ToolCall { operation: operation.to_owned(), arguments, ..call.clone() })
    }
}
