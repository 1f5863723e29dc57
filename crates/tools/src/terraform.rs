//! `terraform`: plans a configuration and applies exactly that plan.
//!
//! The dry run is `terraform plan -out`, read with `terraform show -json`. Its precondition is lineage and serial of
//! the state with a hash of the planned changes. The execution plans again, compares, and applies the plan file that
//! was compared; Terraform itself refuses it if the state has changed meanwhile. Terraform stores no key of ours, so a
//! note (see `marks`) of the key says before the apply that it begins, and after it which state it left.
//!
//! OpenTofu has the same command line. `terraform init` is the operator's: providers are programs, too.

mod changes;
mod configuration;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Risk, Run, Tool, ToolError, ToolSpec, operation, parse_arguments, read_operation};

use crate::marks::{Mark, Marks};
use crate::programs::{ProgramCall, ProgramOutput};
use crate::redaction::redact;
use crate::{Context, Declared, SettingError, ToolKind};
use changes::Changes;
use configuration::{Arguments, Settings};

/// Maximum duration of what changes nothing.
const PLAN_TIMEOUT: Duration = Duration::from_secs(600);
/// Default maximum duration of an apply.
const APPLY_TIMEOUT: Duration = Duration::from_secs(3600);
/// Largest state or plan in JSON, in bytes.
const JSON_BYTES: usize = 64 << 20;
/// Largest output of other commands that is kept, in bytes.
const TEXT_BYTES: usize = 256 << 10;
/// Age after which a plan file was left by a crash: no call takes as long.
const MAX_PLAN_FILE_AGE: Duration = Duration::from_secs(24 * 3600);
/// Digits of the hash of a plan in a precondition.
const HASH_DIGITS: usize = 32;

/// The `terraform` tool.
#[derive(Debug)]
pub(crate) struct TerraformTool {
    targets: Vec<Declared<Settings>>,
    context: Context,
    marks: Marks,
}

/// A plan file, which holds values of the state; removed when dropped.
#[derive(Debug)]
struct PlanFile(PathBuf);

impl Drop for PlanFile {
    fn drop(&mut self) {
        // Terraform may not have written it.
        drop(std::fs::remove_file(&self.0));
    }
}

/// A plan that was saved.
#[derive(Debug)]
struct SavedPlan {
    file: PlanFile,
    /// Lineage and serial of the state that it is for.
    state: String,
    /// Precondition of the dry run.
    precondition: String,
    changes: Changes,
}

impl ToolKind for TerraformTool {
    const NAME: &'static str = "terraform";
    type Settings = Settings;

    fn check_settings(settings: &Settings) -> Result<(), SettingError> {
        settings.check()
    }

    fn programs(settings: &Settings) -> Vec<PathBuf> {
        vec![settings.program.clone()]
    }

    fn new(targets: Vec<Declared<Settings>>, context: Context) -> Self {
        let marks = context.marks("terraform");
        Self { targets, context, marks }
    }
}

impl TerraformTool {
    fn settings(&self, call: &ToolCall) -> Result<&Settings, ToolError> {
        let target = self.targets.iter().find(|target| target.name() == call.target);
        target.map(|target| &target.settings).ok_or_else(|| ToolError::Invalid("the target is not declared".to_owned()))
    }

    /// Runs Terraform. An error of starting it is one; its exit code is the caller's.
    fn run(
        &self,
        settings: &Settings,
        words: &[&str],
        timeout: Duration,
        bytes: usize,
    ) -> Result<ProgramOutput, ToolError> {
        let fixed = [
            ("TF_IN_AUTOMATION", "1"),
            ("TF_INPUT", "0"),
            ("CHECKPOINT_DISABLE", "1"),
            ("TF_CLI_CONFIG_FILE", settings.cli_config.as_deref().and_then(Path::to_str).unwrap_or("/dev/null")),
        ];
        let mut environment: Vec<(String, String)> =
            fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.extend(settings.workspace.iter().map(|name| ("TF_WORKSPACE".to_owned(), name.clone())));
        for (name, value) in &settings.environment {
            environment.push((name.clone(), self.context.secrets.resolve(value)?.as_str().to_owned()));
        }
        self.context.programs.run(&ProgramCall {
            program: settings.program.clone(),
            arguments: words.iter().map(|word| (*word).to_owned()).collect(),
            environment,
            folder: settings.folder.clone(),
            input: String::new(),
            timeout,
            output_bytes: bytes,
        })
    }

    fn run_to_json(&self, settings: &Settings, words: &[&str]) -> Result<Value, ToolError> {
        let output = self.run(settings, words, PLAN_TIMEOUT, JSON_BYTES)?;
        if output.code != Some(0) {
            return Err(failed(&output));
        }
        if output.truncated {
            return Err(ToolError::Invalid(format!("the state or plan has more than {JSON_BYTES} bytes in JSON")));
        }
        if output.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&output.stdout).map_err(|error| ToolError::Unavailable(format!("no JSON: {error}")))
    }

    /// Returns lineage and serial of the state, which every change of it increases.
    fn state_id(&self, settings: &Settings) -> Result<String, ToolError> {
        let state = self.run_to_json(settings, &["state", "pull"])?;
        Ok(match (state["lineage"].as_str(), state["serial"].as_u64()) {
            (Some(lineage), Some(serial)) => format!("lineage={lineage} serial={serial}"),
            _ => "no state".to_owned(),
        })
    }

    /// Plans and saves the plan.
    fn make_plan(&self, call: &ToolCall) -> Result<SavedPlan, ToolError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let settings = self.settings(call)?;
        let arguments: Arguments = parse_arguments(&call.arguments)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = PlanFile(self.plans_folder()?.join(format!("{}-{number}", std::process::id())));
        let state = self.state_id(settings)?;
        let out = format!("-out={}", file.0.display());
        let options = arguments.options();
        let mut words = vec!["plan", "-input=false", "-no-color", "-detailed-exitcode", out.as_str()];
        words.extend(options.iter().map(String::as_str));
        let output = self.run(settings, &words, PLAN_TIMEOUT, TEXT_BYTES)?;
        // 0: nothing to change, 2: something to change.
        if !matches!(output.code, Some(0 | 2)) || output.timed_out {
            return Err(failed(&output));
        }
        let json = self.run_to_json(settings, &["show", "-json", "-no-color", &file.0.display().to_string()])?;
        let changes = Changes::read(&json)?;
        let digits: String = sha256_hex(changes.fingerprint.as_bytes()).chars().take(HASH_DIGITS).collect();
        let precondition = format!("{state} plan={digits}");
        Ok(SavedPlan { file, state, precondition, changes })
    }

    /// Returns the folder of plan files, without those that a crash has left.
    fn plans_folder(&self) -> Result<PathBuf, ToolError> {
        let folder = self.context.folder.join("terraform/plans");
        let unusable = |error: std::io::Error| ToolError::Unavailable(format!("{}: {error}", folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(unusable)?;
        for entry in std::fs::read_dir(&folder).map_err(unusable)?.flatten() {
            let age = entry.metadata().and_then(|file| file.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > MAX_PLAN_FILE_AGE) {
                drop(PlanFile(entry.path()));
            }
        }
        Ok(folder)
    }

    /// Whether an apply has left nothing of what it was to change.
    fn is_done(&self, settings: &Settings, arguments: &Arguments) -> Result<bool, ToolError> {
        let options = arguments.without_replacements().options();
        let mut words = vec!["plan", "-input=false", "-no-color", "-detailed-exitcode"];
        words.extend(options.iter().map(String::as_str));
        let output = self.run(settings, &words, PLAN_TIMEOUT, TEXT_BYTES)?;
        match output.code {
            Some(0) => Ok(true),
            Some(2) => Ok(false),
            _ => Err(failed(&output)),
        }
    }

    /// Applies the saved plan, between the two notes.
    fn apply(&self, call: &ToolCall, plan: &SavedPlan, run: &Run<'_>) -> Result<Applied, ToolError> {
        let settings = self.settings(call)?;
        let begun = Mark { before: plan.state.clone(), after: None };
        self.marks.set(run.key, &begun)?;
        (run.progress)(&format!("applying: {}", plan.changes.summary()));
        let file = plan.file.0.display().to_string();
        let output = self.run(settings, &["apply", "-input=false", "-no-color", &file], run.timeout, TEXT_BYTES)?;
        if output.timed_out {
            return Err(ToolError::Unavailable(output.failure()));
        }
        let text = format!("{}\n{}", output.stdout, output.stderr).trim().to_owned();
        let found = self.state_id(settings)?;
        if output.code != Some(0) {
            if text.contains("Saved plan is stale") {
                return Err(ToolError::Stale("Terraform says that the state has changed since the plan".to_owned()));
            }
            // What was changed before the failure stays changed: only an unchanged state is no effect.
            let outcome = if found == plan.state { Outcome::NotApplied } else { Outcome::Unknown };
            return Ok(Applied { output: text, ..Applied::new(outcome, last_error(&output)) });
        }
        let arguments: Arguments = parse_arguments(&call.arguments)?;
        if !self.is_done(settings, &arguments)? {
            let detail = "Terraform reported success, but a new plan still has changes";
            return Ok(Applied { output: text, ..Applied::new(Outcome::Unknown, detail) });
        }
        self.marks.set(run.key, &Mark { after: Some(found), ..begun })?;
        Ok(Applied { output: text, ..Applied::new(Outcome::Applied, format!("applied: {}", plan.changes.summary())) })
    }
}

/// An error of a command that changes nothing.
fn failed(output: &ProgramOutput) -> ToolError {
    let text = last_error(output);
    let retry = ["Error acquiring the state lock", "connection", "timeout", "TLS handshake", "503", "429"];
    let is_temporary = output.timed_out || retry.iter().any(|part| output.stderr.contains(part));
    if is_temporary { ToolError::Unavailable(text) } else { ToolError::Invalid(text) }
}

/// Returns the first line of the last error that Terraform printed.
fn last_error(output: &ProgramOutput) -> String {
    // `state pull` knows no `-no-color`.
    let text = without_colours(&redact(&output.stderr, &[]));
    let mut lines = text.lines().map(|line| line.trim_start_matches(['│', '╷', '╵', ' ']));
    let error = lines.rfind(|line| line.starts_with("Error: ")).map(str::to_owned);
    error.map_or_else(|| output.failure(), |error| format!("terraform: {error}"))
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    for (index, part) in text.split('\u{1b}').enumerate() {
        // A sequence ends with its letter.
        let rest = if index == 0 { part } else { part.split_once('m').map_or(part, |(_, rest)| rest) };
        plain += rest;
    }
    plain
}

impl Tool for TerraformTool {
    fn spec(&self) -> ToolSpec {
        let operations = vec![
            read_operation::<Arguments>("plan", "show what an apply would change"),
            operation::<Arguments>("apply", "apply the planned changes, exactly", Risk::High, false),
        ];
        let spec = ToolSpec::new("terraform", "a Terraform or OpenTofu configuration", operations);
        ToolSpec { timeout: APPLY_TIMEOUT, output_bytes: TEXT_BYTES, ..spec }
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        let arguments: Arguments = parse_arguments(&call.arguments)?;
        let settings = self.settings(call)?;
        match arguments.variables.keys().find(|name| !settings.variables.contains(name)) {
            Some(name) => Err(ToolError::Invalid(format!("the variable {name:?} is not in the target's `variables`"))),
            None => Ok(()),
        }
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let settings = self.settings(call)?;
        let SavedPlan { precondition, changes, .. } = self.make_plan(call)?;
        if changes.is_empty() {
            return Err(ToolError::Invalid("there is nothing to change".to_owned()));
        }
        if changes.removed() > settings.max_removals as usize {
            return Err(ToolError::Invalid(format!(
                "{} resources would be destroyed or replaced; the target's max-removals is {}: {}",
                changes.removed(),
                settings.max_removals,
                changes.removed_addresses().join(", ")
            )));
        }
        Ok(DryRun {
            diff: format!("{}: {}", changes.summary(), changes.diff()),
            blast_radius: changes.blast_radius(),
            affected: Some(changes.count() as u64),
            risk: changes.risk().as_str().to_owned(),
            reversible: false,
            precondition,
            undo: None,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        if self.probe(call, run.precondition, run.key)? == Outcome::Applied {
            return Ok(Applied::new(Outcome::Applied, "it was applied before"));
        }
        (run.progress)("planning");
        // Plans again, so that a change of the configuration or of the resources is seen, too; the same changes of the
        // same state have the same name.
        let plan = self.make_plan(call)?;
        if plan.precondition != run.precondition {
            let detail = format!("the target is at {}, the plan expects {}", plan.precondition, run.precondition);
            return Err(ToolError::Stale(detail));
        }
        self.apply(call, &plan, run)
    }

    fn probe(&self, call: &ToolCall, _precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let settings = self.settings(call)?;
        let Some(mark) = self.marks.get(key)? else { return Ok(Outcome::NotApplied) };
        if mark.after.is_none() {
            // An apply that still runs holds the lock of the state, and this fails.
            let words = ["plan", "-input=false", "-no-color", "-refresh=false", "-lock-timeout=0s"];
            let output = self.run(settings, &words, PLAN_TIMEOUT, TEXT_BYTES)?;
            if output.code != Some(0) {
                return Err(failed(&output).map_text(|text| format!("cannot tell whether it still runs: {text}")));
            }
        }
        let found = self.state_id(settings)?;
        Ok(match mark.after {
            Some(after) if after == found => Outcome::Applied,
            None if mark.before == found => Outcome::NotApplied,
            _ => Outcome::Unknown,
        })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        self.make_plan(call).map(|plan| plan.precondition)
    }

    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        self.make_plan(call).map(|plan| plan.changes.to_json())
    }
}
