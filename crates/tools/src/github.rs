//! `github`: GitHub Actions and issues of one repository.
//!
//! Problem: GitHub takes no idempotency key, and a workflow that is dispatched twice deploys twice. Model: the key goes
//! where GitHub shows it again: as an input of a dispatched workflow that puts it into the run's name, and as a comment
//! in an issue's body; a note of ours says that an execution began. Guarantees: what began and cannot be found is
//! unknown, and never repeated; only workflows that the configuration names are dispatched.

mod github_operations;
mod github_settings;
mod repository;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Run, Tool, ToolError, ToolSpec};

use self::github_operations::Action;
use self::repository::Repository;
use crate::marks::{Mark, Marks};
use crate::rest::{message, poll_interval};
use crate::{Context, Declared, SettingError, ToolKind};

use github_settings::GithubSettings;

/// Default maximum duration of an execution: a workflow's run.
const DEFAULT_DURATION: Duration = Duration::from_secs(1800);
/// How long a dispatched run may take to appear in the list of runs.
const APPEARANCE_TIME: Duration = Duration::from_secs(60);

/// The `github` tool.
#[derive(Debug)]
pub(crate) struct GithubTool {
    targets: Vec<Declared<GithubSettings>>,
    context: Context,
}

impl GithubTool {
    fn settings(&self, call: &ToolCall) -> Result<&GithubSettings, ToolError> {
        let declared = self.targets.iter().find(|target| target.name() == call.target);
        let declared =
            declared.ok_or_else(|| ToolError::Invalid(format!("target {:?} is not declared", call.target)))?;
        Ok(&declared.settings)
    }

    fn open(&self, call: &ToolCall) -> Result<(Repository, Action), ToolError> {
        let settings = self.settings(call)?;
        Ok((Repository::open(settings, &self.context)?, Action::of(call, settings)?))
    }

    fn marks(&self) -> Marks {
        self.context.marks(Self::NAME)
    }
}

impl ToolKind for GithubTool {
    const NAME: &'static str = "github";
    type Settings = GithubSettings;

    fn check_settings(settings: &GithubSettings) -> Result<(), SettingError> {
        settings.check()
    }

    fn new(targets: Vec<Declared<GithubSettings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl Tool for GithubTool {
    fn spec(&self) -> ToolSpec {
        let spec =
            ToolSpec::new(Self::NAME, "Actions and issues of a GitHub repository", github_operations::operations());
        ToolSpec { timeout: DEFAULT_DURATION, ..spec }
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        Action::of(call, self.settings(call)?).map(drop)
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let (repository, action) = self.open(call)?;
        let (diff, blast_radius, affected) = describe(&repository, &action)?;
        let undo = action.undo(call);
        let risk = github_operations::operations().into_iter().find(|operation| operation.name == call.operation);
        Ok(DryRun {
            diff,
            blast_radius,
            affected: Some(affected),
            risk: risk.map_or("high", |operation| operation.risk.as_str()).to_owned(),
            reversible: undo.is_some(),
            precondition: repository.state(&action)?,
            undo,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let (repository, action) = self.open(call)?;
        let marks = self.marks();
        if let Some(mark) = marks.get(run.key)? {
            match found(&repository, &action, &mark, run.key)? {
                Outcome::Applied => return finish(&repository, &action, run, &marks),
                // The target shows that nothing happened: what cannot be seen is unknown.
                Outcome::NotApplied => {}
                outcome => return Ok(Applied::new(outcome, "an execution of this key began before")),
            }
        }
        let state = repository.state(&action)?;
        if state != run.precondition {
            return Err(ToolError::Stale(format!("{} is at {state}", call.target)));
        }
        marks.set(run.key, &Mark { before: state, after: None })?;
        let answer = repository.act(&action, run.key)?;
        if answer.status >= 300 {
            let detail = format!("GitHub refuses ({}): {}", answer.status, message(&answer.body));
            return Ok(Applied::new(Outcome::NotApplied, detail));
        }
        finish(&repository, &action, run, &marks)
    }

    fn probe(&self, call: &ToolCall, _precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let (repository, action) = self.open(call)?;
        match self.marks().get(key)? {
            None => Ok(Outcome::NotApplied),
            Some(mark) => found(&repository, &action, &mark, key),
        }
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        let (repository, action) = self.open(call)?;
        repository.state(&action)
    }

    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        let (repository, action) = self.open(call)?;
        let Action::ReadRun { id } = action else {
            return Err(ToolError::Invalid(format!("{} is not read only", call.operation)));
        };
        let run = repository.run(id)?;
        let jobs = repository.failed_jobs(id)?;
        Ok(json!({ "name": run["name"], "status": run["status"], "conclusion": run["conclusion"],
            "attempt": run["run_attempt"], "branch": run["head_branch"], "commit": run["head_sha"],
            "failed_jobs": jobs, "started_at": run["run_started_at"] }))
    }
}

/// Says what an action does, whom it affects, and how many.
fn describe(repository: &Repository, action: &Action) -> Result<(String, String, u64), ToolError> {
    match action {
        Action::RerunFailed { id } => {
            let run = repository.run(*id)?;
            let jobs = repository.failed_jobs(*id)?;
            if run["status"] != "completed" || jobs.is_empty() {
                let detail = format!(
                    "run {id} is {} and has {} failed jobs; there is nothing to run again",
                    run["status"],
                    jobs.len()
                );
                return Err(ToolError::Invalid(detail));
            }
            let name = run["name"].as_str().unwrap_or("unnamed");
            let branch = run["head_branch"].as_str().unwrap_or_default();
            let diff = format!("run {id} of {name} on {branch}: the failed jobs are run again: {}", jobs.join(", "));
            Ok((diff, format!("{} jobs, and what depends on them", jobs.len()), jobs.len() as u64))
        }
        Action::Revert { commit, workflow, branch } => {
            let found = repository.commit(commit)?;
            let title = found["commit"]["message"].as_str().unwrap_or_default().lines().next().unwrap_or_default();
            let author = found["commit"]["author"]["name"].as_str().unwrap_or("unknown");
            let files = found["files"].as_array().map_or(0, Vec::len);
            let [added, removed] =
                ["additions", "deletions"].map(|name| found["stats"][name].as_u64().unwrap_or_default());
            let diff = format!(
                "{workflow} reverts commit {commit} on {branch}: {title:?} by {author}, {files} files, +{added} −{removed} lines"
            );
            Ok((diff, format!("{files} files, and what is deployed from {branch}"), files as u64))
        }
        Action::OpenIssue { title, .. } => {
            if let Some(number) = repository.issue_with_title(title)? {
                return Err(ToolError::Invalid(format!("issue #{number} with this title is open already")));
            }
            Ok((format!("an issue is opened: {title:?}"), "the issue's readers".to_owned(), 1))
        }
        Action::SetWorkflow { workflow, enabled } => {
            let found = repository.workflow(workflow)?;
            let state = found["state"].as_str().unwrap_or("unknown");
            if (state == "active") == *enabled {
                return Err(ToolError::Invalid(format!("workflow {workflow} is {state} already")));
            }
            let after = if *enabled { "active" } else { "disabled" };
            let name = found["name"].as_str().unwrap_or(workflow);
            Ok((format!("workflow {name} ({workflow}) goes from {state} to {after}"), "1 workflow".to_owned(), 1))
        }
        Action::ReadRun { .. } => Ok((String::new(), String::new(), 0)),
    }
}

/// Looks for the effect of an execution that began.
fn found(repository: &Repository, action: &Action, mark: &Mark, key: &str) -> Result<Outcome, ToolError> {
    let outcome = match action {
        Action::RerunFailed { id } => {
            let attempt = repository.run(*id)?["run_attempt"].as_u64().unwrap_or_default();
            let planned =
                mark.before.split_once("attempt=").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
            match planned.and_then(|planned| planned.parse::<u64>().ok()) {
                Some(planned) if attempt == planned => Outcome::NotApplied,
                Some(planned) if attempt == planned + 1 => Outcome::Applied,
                _ => Outcome::Unknown,
            }
        }
        // What is not in a list yet may appear in it later, so its absence proves nothing.
        Action::Revert { workflow, .. } => match repository.run_of_key(workflow, key)? {
            Some(_) => Outcome::Applied,
            None => Outcome::Unknown,
        },
        Action::OpenIssue { .. } => match repository.issue_of_key(key)? {
            Some(_) => Outcome::Applied,
            None => Outcome::Unknown,
        },
        Action::SetWorkflow { workflow, enabled } => {
            let is_active = repository.workflow(workflow)?["state"] == "active";
            if is_active == *enabled { Outcome::Applied } else { Outcome::NotApplied }
        }
        Action::ReadRun { .. } => Outcome::NotApplied,
    };
    Ok(mark.evaluate(outcome))
}

/// Follows what was set off to its end, and notes that it took effect.
fn finish(repository: &Repository, action: &Action, run: &Run<'_>, marks: &Marks) -> Result<Applied, ToolError> {
    let mark = Mark { before: run.precondition.to_owned(), after: None };
    let applied = follow(repository, action, run, &mark)?;
    marks.complete((run.key, mark), applied, || repository.state(action))
}

/// Follows what was set off to its end. A success answer is not trusted: the effect is looked for.
fn follow(repository: &Repository, action: &Action, run: &Run<'_>, mark: &Mark) -> Result<Applied, ToolError> {
    let started = Instant::now();
    let limit = run.timeout.mul_f32(0.9);
    let interval = poll_interval(run.timeout);
    loop {
        let outcome = found(repository, action, mark, run.key)?;
        let workflow_run = match (outcome, action) {
            (Outcome::Applied, Action::RerunFailed { id }) => Some(repository.run(*id)?),
            (Outcome::Applied, Action::Revert { workflow, .. }) => repository.run_of_key(workflow, run.key)?,
            (Outcome::Applied, Action::OpenIssue { .. }) => {
                let number = repository.issue_of_key(run.key)?.unwrap_or_default();
                return Ok(Applied::new(outcome, format!("issue #{number} is open")));
            }
            (Outcome::Applied, _) => return Ok(Applied::new(outcome, "the workflow is changed")),
            _ => None,
        };
        if let Some(found) = &workflow_run {
            let (id, status) = (&found["id"], found["status"].as_str().unwrap_or("unknown"));
            if status == "completed" {
                let conclusion = found["conclusion"].as_str().unwrap_or("no conclusion");
                return Ok(Applied::new(Outcome::Applied, format!("run {id} has ended: {conclusion}")));
            }
            if started.elapsed() > limit {
                return Ok(Applied::new(Outcome::Applied, format!("run {id} goes on: {status}")));
            }
            (run.progress)(&format!("run {id} is {status}"));
        } else if started.elapsed() > limit.min(APPEARANCE_TIME) {
            let detail = "GitHub reported success, but shows no effect";
            return Ok(Applied::new(Outcome::Unknown, detail));
        }
        std::thread::sleep(interval);
    }
}
