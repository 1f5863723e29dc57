//! `github` against a server made from GitHub's published description, which the official client accepts.

use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::{Outcome, ToolCall};
use wardroom_respond::{Run, Tool, ToolError};
use wardroom_tools::programs::NoPrograms;
use wardroom_tools::{Context, SecretsConfig};

use super::contract::{self, Case, Cut};
use super::support::github_repository::{GithubRepository, TOKEN};
use super::{call, cut_proxy, tool_with};

struct Fixture {
    repository: GithubRepository,
    tool: Box<dyn Tool>,
    context: Context,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let repository = GithubRepository::start();
    let context = Context::new(SecretsConfig::default(), Arc::new(NoPrograms), dir.path());
    let tool = tool_with(&targets(&repository.api.url), &context);
    Fixture { repository, tool, context, _dir: dir }
}

fn targets(url: &str) -> Value {
    json!([{ "tool": "github", "name": "shop", "url": url, "repository": "octo-org/octo-repo", "token": TOKEN,
        "revert-workflow": "revert.yml", "timeout-seconds": 2 }])
}

/// A change of the target that is not the tool's.
type OtherChange = fn(&GithubRepository);

/// The calls, each with such a change.
fn cases() -> Vec<(ToolCall, OtherChange)> {
    let github = |operation: &str, arguments: Value| call("github", operation, "shop", arguments);
    let commit = "d".repeat(40);
    vec![
        (github("rerun_failed_jobs", json!({ "run_id": 30_433_642 })), |repository| repository.state().attempt += 1),
        (github("revert", json!({ "commit": commit })), |repository| repository.state().head = "e".repeat(40)),
        (
            github("open_issue", json!({ "title": "cart is slow", "body": "why", "labels": ["incident"] })),
            |repository| {
                repository
                    .open_issue(&json!({ "title": "cart is slow", "body": "mine", "state": "open", "number": 99 }));
            },
        ),
        (github("disable_workflow", json!({ "workflow": "deploy.yml" })), |repository| {
            repository.state().workflow_state = "disabled_inactivity";
        }),
        (github("enable_workflow", json!({ "workflow": "deploy.yml" })), |repository| {
            repository.state().workflow_state = "active";
        }),
    ]
}

/// Puts the repository back, so that each call can be planned again.
fn reset(repository: &GithubRepository, operation: &str) {
    let mut state = repository.state();
    state.conclusion = "failure";
    state.running = 0;
    state.issues.clear();
    state.workflow_state = if operation == "enable_workflow" { "disabled_manually" } else { "active" };
}

#[test]
fn every_operation_holds_the_contract() {
    let fixture = fixture();
    let Fixture { repository, tool, .. } = &fixture;
    let effects = || repository.state().effects.len();
    for (call, other) in cases() {
        let operation = call.operation.clone();
        let other_change = || other(repository);
        let case = Case { tool: tool.as_ref(), call, other_change: &other_change, effects: &effects, key: &operation };
        reset(repository, &operation);
        contract::refused(&case);
        contract::twice_and_undone(&case);
        reset(repository, &operation);
        contract::stale(&case);
    }
    assert_eq!(repository.api.violations(), Vec::<String>::new());
}

#[test]
fn an_interrupted_execution_takes_effect_at_most_once() {
    let fixture = fixture();
    let cut = Arc::new(Cut::default());
    let address = fixture.repository.api.url.strip_prefix("http://").unwrap();
    let proxy = format!("http://{}", cut_proxy::tcp(address, &cut));
    let cut_off = tool_with(&targets(&proxy), &fixture.context);
    let effects = || fixture.repository.state().effects.len();
    let mut interruptions = 0;
    for (call, _) in cases() {
        let operation = call.operation.clone();
        let case = Case { tool: fixture.tool.as_ref(), call, other_change: &|| (), effects: &effects, key: &operation };
        for (step, after) in (0..100).flat_map(|step| [(step, false), (step, true)]) {
            reset(&fixture.repository, &operation);
            if !contract::interrupted(&case, cut_off.as_ref(), &cut, step, after) {
                break;
            }
            interruptions += 1;
        }
    }
    assert!(interruptions > 20, "{interruptions}");
}

#[test]
fn plans_say_what_happens_and_lost_answers_are_found_again() {
    let fixture = fixture();
    let Fixture { repository, tool, .. } = &fixture;
    let calls: Vec<ToolCall> = cases().into_iter().map(|(call, _)| call).collect();
    let diff = |call: &ToolCall| tool.plan(call).unwrap().diff;
    assert!(diff(&calls[0]).contains("the failed jobs are run again: build"), "{}", diff(&calls[0]));
    assert!(diff(&calls[1]).contains("revert.yml reverts commit dddd"), "{}", diff(&calls[1]));
    assert_eq!(diff(&calls[3]), "workflow CI (deploy.yml) goes from active to disabled");
    // The effect took place, its answer was lost, and it must not be done again.
    let dispatch = &calls[1];
    let precondition = tool.plan(dispatch).unwrap().precondition;
    repository.state().lose_next_answer = true;
    repository.state().hide_runs = true;
    let run = Run::new(&precondition, "lost");
    assert!(matches!(tool.execute(dispatch, &run), Err(ToolError::Unavailable(_))));
    assert_eq!(tool.probe(dispatch, &precondition, "lost"), Ok(Outcome::Unknown), "not listed yet proves nothing");
    repository.state().hide_runs = false;
    assert_eq!(tool.probe(dispatch, &precondition, "lost"), Ok(Outcome::Applied));
    let applied = tool.execute(dispatch, &run).unwrap();
    assert!(applied.outcome == Outcome::Applied && applied.detail.contains("success"), "{applied:?}");
    assert_eq!(repository.state().effects, ["dispatch"]);
    let read = call("github", "run", "shop", json!({ "run_id": 30_433_642 }));
    assert_eq!(tool.read(&read, std::time::Duration::ZERO).unwrap()["status"], "completed");
}
