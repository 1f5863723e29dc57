//! Requests to GitHub's REST API about one repository.

use serde_json::{Value, json};
use wardroom_domain::canonical::sha256_hex;
use wardroom_respond::ToolError;

use super::github_operations::Action;
use super::github_settings::GithubSettings;
use crate::Context;
use crate::rest::{Answer, Rest, encode};

/// Headers of every request: the version of the API that this tool was written for.
const HEADERS: [(&str, &str); 2] = [("Accept", "application/vnd.github+json"), ("X-GitHub-Api-Version", "2022-11-28")];

/// A repository with a connection to its API.
pub(super) struct Repository {
    rest: Rest,
}

impl Repository {
    pub(super) fn open(settings: &GithubSettings, context: &Context) -> Result<Self, ToolError> {
        let token = context.secrets.resolve(&settings.token)?.as_str().to_owned();
        let url = format!("{}/repos/{}", settings.url.trim_end_matches('/'), settings.repository);
        let rest = Rest { http: context.http(), name: "GitHub", url, token: Some(token), headers: &HEADERS };
        Ok(Self { rest })
    }

    pub(super) fn run(&self, id: u64) -> Result<Value, ToolError> {
        self.rest.get(&format!("/actions/runs/{id}"))
    }

    /// Names of the failed jobs of a run's last attempt.
    pub(super) fn failed_jobs(&self, id: u64) -> Result<Vec<String>, ToolError> {
        let list = self.rest.get(&format!("/actions/runs/{id}/jobs?filter=latest&per_page=100"))?;
        let has_failed =
            |job: &&Value| matches!(job["conclusion"].as_str(), Some("failure" | "timed_out" | "cancelled"));
        let jobs = list["jobs"].as_array().into_iter().flatten().filter(has_failed);
        Ok(jobs.filter_map(|job| job["name"].as_str().map(str::to_owned)).collect())
    }

    pub(super) fn commit(&self, reference: &str) -> Result<Value, ToolError> {
        self.rest.get(&format!("/commits/{}", encode(reference)))
    }

    pub(super) fn workflow(&self, workflow: &str) -> Result<Value, ToolError> {
        self.rest.get(&format!("/actions/workflows/{}", encode(workflow)))
    }

    /// The run whose name has a key.
    pub(super) fn run_of_key(&self, workflow: &str, key: &str) -> Result<Option<Value>, ToolError> {
        let path = format!("/actions/workflows/{}/runs?event=workflow_dispatch&per_page=100", encode(workflow));
        let list = self.rest.get(&path)?;
        let has_key = |run: &&Value| run["display_title"].as_str().is_some_and(|title| title.contains(key));
        Ok(list["workflow_runs"].as_array().into_iter().flatten().find(has_key).cloned())
    }

    /// The number of the issue whose body has the mark of a key.
    pub(super) fn issue_of_key(&self, key: &str) -> Result<Option<u64>, ToolError> {
        let mark = issue_mark(key);
        let has_mark = |issue: &&Value| issue["body"].as_str().is_some_and(|body| body.contains(&mark));
        Ok(self.issues("all")?.iter().find(has_mark).and_then(|issue| issue["number"].as_u64()))
    }

    /// The number of the open issue with a title.
    pub(super) fn issue_with_title(&self, title: &str) -> Result<Option<u64>, ToolError> {
        let issues = self.issues("open")?;
        Ok(issues.iter().find(|issue| issue["title"] == title).and_then(|issue| issue["number"].as_u64()))
    }

    fn issues(&self, state: &str) -> Result<Vec<Value>, ToolError> {
        let list = self.rest.get(&format!("/issues?state={state}&sort=created&direction=desc&per_page=100"))?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    /// The precondition of a plan.
    pub(super) fn state(&self, action: &Action) -> Result<String, ToolError> {
        Ok(match action {
            Action::RerunFailed { id } | Action::ReadRun { id } => {
                let run = self.run(*id)?;
                let conclusion = run["conclusion"].as_str().unwrap_or("none");
                format!("run={id} attempt={} status={} conclusion={conclusion}", run["run_attempt"], run["status"])
            }
            Action::Revert { commit, branch, .. } => {
                let head = self.commit(branch)?;
                format!("branch={branch} head={} commit={commit}", head["sha"].as_str().unwrap_or_default())
            }
            Action::OpenIssue { title, .. } => match self.issue_with_title(title)? {
                None => "no open issue with this title".to_owned(),
                Some(number) => format!("open issue #{number} with this title"),
            },
            Action::SetWorkflow { workflow, .. } => {
                let found = self.workflow(workflow)?;
                format!("workflow={} state={}", found["id"], found["state"].as_str().unwrap_or_default())
            }
        })
    }

    /// Sends the request that an action is.
    pub(super) fn act(&self, action: &Action, key: &str) -> Result<Answer, ToolError> {
        match action {
            Action::RerunFailed { id } => {
                self.rest.send("POST", &format!("/actions/runs/{id}/rerun-failed-jobs"), Some(&json!({})))
            }
            Action::Revert { commit, workflow, branch } => {
                let path = format!("/actions/workflows/{}/dispatches", encode(workflow));
                let inputs = json!({ "commit": commit, "wardroom_key": key });
                self.rest.send("POST", &path, Some(&json!({ "ref": branch, "inputs": inputs })))
            }
            Action::OpenIssue { title, body, labels } => {
                let body = format!("{body}\n\n{}", issue_mark(key));
                self.rest.send("POST", "/issues", Some(&json!({ "title": title, "body": body, "labels": labels })))
            }
            Action::SetWorkflow { workflow, enabled } => {
                let verb = if *enabled { "enable" } else { "disable" };
                self.rest.send("PUT", &format!("/actions/workflows/{}/{verb}", encode(workflow)), None)
            }
            Action::ReadRun { .. } => Err(ToolError::Invalid("run only reads".to_owned())),
        }
    }
}

/// A comment in an issue's body that is not shown, with a hash of the key.
fn issue_mark(key: &str) -> String {
    format!("<!-- wardroom {} -->", sha256_hex(key.as_bytes()))
}
