//! A little repository behind the description of GitHub's API. Bodies start from the examples of the description.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use wardroom_testing::{ApiAnswer, ApiRequest, DescribedApi};

const DESCRIPTION: &str = include_str!("../apis/github.json");
const EXAMPLES: &str = include_str!("../apis/github_examples.json");
/// Token of the app's installation.
pub(crate) const TOKEN: &str = "installation-token-canary-2";

/// A running repository.
pub(crate) struct GithubRepository {
    pub(crate) api: DescribedApi,
    state: Arc<Mutex<State>>,
}

/// What the repository has and does.
pub(crate) struct State {
    examples: Value,
    pub(crate) attempt: u64,
    pub(crate) conclusion: &'static str,
    /// Requests for the run until it has ended.
    pub(crate) running: u32,
    pub(crate) workflow_state: &'static str,
    pub(crate) head: String,
    pub(crate) issues: Vec<Value>,
    /// Names of the dispatched runs.
    pub(crate) dispatched: Vec<String>,
    /// Changes, in order.
    pub(crate) effects: Vec<String>,
    /// Whether the next answer to a change is lost.
    pub(crate) lose_next_answer: bool,
    /// Whether dispatched runs are not listed.
    pub(crate) hide_runs: bool,
}

impl GithubRepository {
    /// Starts a repository with the failed run 30433642 and the active workflow `deploy.yml`.
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            examples: serde_json::from_str(EXAMPLES).unwrap(),
            attempt: 1,
            conclusion: "failure",
            running: 0,
            workflow_state: "active",
            head: "a".repeat(40),
            issues: Vec::new(),
            dispatched: Vec::new(),
            effects: Vec::new(),
            lose_next_answer: false,
            hide_runs: false,
        }));
        let shared = Arc::clone(&state);
        let answer = move |request: &ApiRequest| lock(&shared).answer(request);
        Self { api: DescribedApi::start(DESCRIPTION, TOKEN, answer).unwrap(), state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Opens an issue as another user would.
    pub(crate) fn open_issue(&self, fields: &Value) {
        let mut state = self.state();
        let mut issue = state.examples["issue"].clone();
        for (name, value) in fields.as_object().unwrap() {
            issue[name] = value.clone();
        }
        state.issues.push(issue);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn answer(&mut self, request: &ApiRequest) -> ApiAnswer {
        match request.operation.as_str() {
            "actions/get-workflow-run" => ApiAnswer::new(200, self.run()),
            "actions/list-jobs-for-workflow-run" => ApiAnswer::new(200, self.jobs()),
            "actions/re-run-workflow-failed-jobs" => {
                if self.conclusion != "failure" {
                    return ApiAnswer::new(403, json!({ "message": "This workflow run cannot be retried" }));
                }
                self.attempt += 1;
                self.running = 2;
                self.conclusion = "success";
                self.change("rerun", 201, json!({}))
            }
            "actions/get-workflow" => {
                let mut workflow = self.examples["workflow"].clone();
                workflow["state"] = json!(self.workflow_state);
                ApiAnswer::new(200, workflow)
            }
            "actions/disable-workflow" => {
                self.workflow_state = "disabled_manually";
                self.change("disable", 204, Value::Null)
            }
            "actions/enable-workflow" => {
                self.workflow_state = "active";
                self.change("enable", 204, Value::Null)
            }
            "actions/create-workflow-dispatch" => {
                let inputs = &request.body["inputs"];
                let [commit, key] = ["commit", "wardroom_key"].map(|name| inputs[name].as_str().unwrap_or_default());
                // What the workflow's `run-name` makes of its inputs.
                self.dispatched.push(format!("revert {commit} ({key})"));
                self.head = "b".repeat(40);
                self.running = 2;
                self.conclusion = "success";
                self.change("dispatch", 204, Value::Null)
            }
            "actions/list-workflow-runs" => {
                let run = self.run();
                let shown = if self.hide_runs { &[][..] } else { &self.dispatched };
                let runs = shown.iter().map(|name| {
                    let mut run = run.clone();
                    run["display_title"] = json!(name);
                    run
                });
                let runs: Vec<Value> = runs.collect();
                ApiAnswer::new(200, json!({ "total_count": runs.len(), "workflow_runs": runs }))
            }
            "issues/list-for-repo" => {
                let state = request.parameter("state");
                let shown = self.issues.iter().filter(|issue| state == "all" || issue["state"] == state);
                ApiAnswer::new(200, shown.cloned().collect::<Vec<_>>().into())
            }
            "issues/create" => {
                let mut issue = self.examples["issue"].clone();
                for name in ["title", "body"] {
                    issue[name] = request.body[name].clone();
                }
                issue["number"] = json!(self.issues.len() + 1);
                self.issues.insert(0, issue.clone());
                self.change("issue", 201, issue)
            }
            "repos/get-commit" => {
                let mut commit = self.examples["commit"].clone();
                let reference = request.parameter("ref");
                commit["sha"] = json!(if reference == "main" { self.head.as_str() } else { reference });
                commit["files"][0]["sha"] = json!("c".repeat(40));
                commit["files"][0]["contents_url"] = json!("https://api.github.com/");
                ApiAnswer::new(200, commit)
            }
            _ => ApiAnswer::new(404, json!({ "message": "Not Found" })),
        }
    }

    fn run(&mut self) -> Value {
        let mut run = self.examples["run"].clone();
        let is_running = self.running > 0;
        self.running = self.running.saturating_sub(1);
        run["run_attempt"] = json!(self.attempt);
        run["status"] = json!(if is_running { "in_progress" } else { "completed" });
        run["conclusion"] = if is_running { Value::Null } else { json!(self.conclusion) };
        run
    }

    fn jobs(&self) -> Value {
        let mut jobs = self.examples["jobs"].clone();
        jobs["jobs"][0]["conclusion"] = json!(self.conclusion);
        // The example is older than this field.
        jobs["jobs"][0]["created_at"] = json!("2020-01-20T17:42:40Z");
        jobs
    }

    fn change(&mut self, effect: &str, status: u16, body: Value) -> ApiAnswer {
        self.effects.push(effect.to_owned());
        ApiAnswer { is_lost: std::mem::take(&mut self.lose_next_answer), ..ApiAnswer::new(status, body) }
    }
}
