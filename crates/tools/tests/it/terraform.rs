//! `terraform` against a real Terraform with its built-in resource `terraform_data`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::{Outcome, ToolCall};
use wardroom_respond::{Run, Tool, ToolError};
use wardroom_testing::server::program;
use wardroom_tools::programs::{LocalPrograms, ProgramCall, Programs};

use super::contract::{self, Case, Cut, CutPrograms};
use super::{call, context, local_programs, tool_with};

/// A service whose images are applied by a provisioner that appends to a file: the effects, counted by the target.
const CONFIGURATION: &str = r#"
variable "image" { default = "checkout:2.4.0" }
variable "replicas" { default = 2 }
variable "password" {
  default   = "CANARY-password"
  sensitive = true
}
resource "terraform_data" "service" {
  count = var.replicas
  input = { name = "checkout-${count.index}", image = var.image, password = var.password }
}
resource "terraform_data" "rollout" {
  input            = var.image
  triggers_replace = [var.image]
  provisioner "local-exec" { command = "echo ${var.image} >> effects" }
}
"#;

struct Stack {
    dir: tempfile::TempDir,
    targets: Value,
}

fn terraform() -> PathBuf {
    program("TERRAFORM_BIN")
}

fn stack() -> Stack {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("stack");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("main.tf"), CONFIGURATION).unwrap();
    std::fs::write(folder.join("effects"), "").unwrap();
    let targets = json!([{ "tool": "terraform", "name": "shop", "program": terraform(), "folder": folder,
        "variables": ["image", "replicas"], "max-removals": 1 }]);
    let stack = Stack { dir, targets };
    stack.terraform(&["init", "-input=false"]);
    stack.terraform(&["apply", "-auto-approve", "-input=false"]);
    stack
}

impl Stack {
    fn folder(&self) -> PathBuf {
        self.dir.path().join("stack")
    }

    /// Runs Terraform as a person would.
    fn terraform(&self, words: &[&str]) {
        let output = LocalPrograms::new([terraform()]).run(&ProgramCall {
            program: terraform(),
            arguments: words.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec![
                ("CHECKPOINT_DISABLE".into(), "1".into()),
                ("TF_CLI_CONFIG_FILE".into(), "/dev/null".into()),
            ],
            folder: self.folder(),
            input: String::new(),
            timeout: std::time::Duration::from_secs(60),
            output_bytes: 100_000,
        });
        let output = output.unwrap();
        assert_eq!(output.code, Some(0), "{output:?}");
    }

    fn tool(&self, programs: impl Programs + 'static) -> Box<dyn Tool> {
        tool_with(&self.targets, &context(programs, &self.dir.path().join("notes")))
    }

    fn effects(&self) -> usize {
        std::fs::read_to_string(self.folder().join("effects")).unwrap().lines().count()
    }
}

fn apply(image: &str) -> ToolCall {
    call("terraform", "apply", "shop", json!({ "variables": { "image": image } }))
}

fn saved_plans(notes: &Path) -> usize {
    std::fs::read_dir(notes.join("terraform/plans")).map_or(0, Iterator::count)
}

/// The contract, on one stack: Terraform takes half a second a step.
#[test]
fn exactly_the_planned_changes_are_applied_once() {
    let stack = stack();
    let tool = stack.tool(local_programs(&stack.targets));
    let effects = || stack.effects();
    let number = std::cell::Cell::new(0);
    let other_change = || {
        number.set(number.get() + 1);
        let image = format!("-var=image=other:{}", number.get());
        stack.terraform(&["apply", "-auto-approve", "-input=false", &image]);
    };
    let call = apply("checkout:2.4.1");
    let dry_run = tool.plan(&call).unwrap();
    assert!(
        dry_run.diff.starts_with("1 to add, 2 to change, 1 to destroy: -/+ terraform_data.rollout ("),
        "{}",
        dry_run.diff
    );
    assert!(dry_run.diff.contains("input.image: \"checkout:2.4.0\" → \"checkout:2.4.1\""), "{}", dry_run.diff);
    assert_eq!((dry_run.affected, dry_run.risk.as_str(), dry_run.reversible), (Some(3), "high", false));
    assert!(!format!("{dry_run:?}").contains("CANARY"), "sensitive values are not shown");
    let case = Case { tool: tool.as_ref(), call, other_change: &other_change, effects: &effects, key: "tf" };
    contract::refused(&case);
    contract::twice_and_undone(&case);
    assert!(matches!(tool.plan(&case.call), Err(ToolError::Invalid(text)) if text.contains("nothing to change")));
    let next = Case { call: apply("checkout:2.4.2"), ..case };
    contract::stale(&next);
    let read = super::call("terraform", "plan", "shop", json!({ "variables": { "image": "checkout:3" } }));
    let planned = tool.read(&read, std::time::Duration::ZERO).unwrap();
    assert_eq!(planned["summary"], "1 to add, 2 to change, 1 to destroy");
}

#[test]
fn a_change_of_the_configuration_or_of_a_resource_makes_a_plan_stale() {
    let stack = stack();
    let tool = stack.tool(local_programs(&stack.targets));
    let call = apply("checkout:2.5.0");
    let dry_run = tool.plan(&call).unwrap();
    let changed = CONFIGURATION.replace("replicas\" { default = 2", "replicas\" { default = 3");
    std::fs::write(stack.folder().join("main.tf"), changed).unwrap();
    let executed = tool.execute(&call, &Run::new(&dry_run.precondition, "k"));
    assert!(matches!(executed, Err(ToolError::Stale(_))), "{executed:?}");
    assert_eq!(stack.effects(), 1, "the first apply of the stack only");
    // Two would be destroyed or replaced, one may be.
    let fewer = super::call("terraform", "apply", "shop", json!({ "variables": { "image": "a:1", "replicas": "1" } }));
    let refused = tool.plan(&fewer);
    assert!(matches!(&refused, Err(ToolError::Invalid(text)) if text.contains("max-removals is 1")), "{refused:?}");
    for (arguments, reason) in [
        (json!({ "variables": { "password": "x" } }), "is not in the target's `variables`"),
        (json!({ "replace": ["-out=x"] }), "pattern"),
        (json!({ "targets": ["a b"] }), "pattern"),
    ] {
        let error = tool.plan(&super::call("terraform", "apply", "shop", arguments)).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let broken = stack.folder().join("broken.tf");
    std::fs::write(&broken, "resource {").unwrap();
    let error = tool.plan(&call).unwrap_err();
    assert!(matches!(&error, ToolError::Invalid(text) if text.starts_with("terraform: Error: ")), "{error}");
    std::fs::remove_file(&broken).unwrap();
    // Replacing one resource on purpose.
    let replace = super::call(
        "terraform",
        "apply",
        "shop",
        json!({ "replace": ["terraform_data.rollout"],
        "targets": ["terraform_data.rollout"] }),
    );
    let dry_run = tool.plan(&replace).unwrap();
    let applied = tool.execute(&replace, &Run::new(&dry_run.precondition, "replace")).unwrap();
    assert_eq!((applied.outcome, stack.effects()), (Outcome::Applied, 2), "{applied:?}");
}

#[test]
fn an_interrupted_apply_is_found_out() {
    let stack = stack();
    let cut = Arc::new(Cut::default());
    let tool = stack.tool(local_programs(&stack.targets));
    let cut_off = stack.tool(CutPrograms { programs: local_programs(&stack.targets), cut: Arc::clone(&cut) });
    let effects = || stack.effects();
    let call = apply("checkout:2.6.0");
    let case = Case { tool: tool.as_ref(), call, other_change: &|| (), effects: &effects, key: "cut" };
    // The image goes back after each, so that there is something to change again.
    let restore = || stack.terraform(&["apply", "-auto-approve", "-input=false"]);
    // The steps are: state, plan, show, apply, state, plan. Not all of them: each takes a second.
    for (step, after) in [(1, true), (3, false), (3, true), (5, false)] {
        assert!(contract::interrupted(&case, cut_off.as_ref(), &cut, step, after), "there are fewer steps than {step}");
        restore();
    }
    let plans = saved_plans(&stack.dir.path().join("notes"));
    assert_eq!(plans, 0, "saved plans, which hold values of the state, are removed");
}
