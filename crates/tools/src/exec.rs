//! `exec`: commands that the operator declares, with typed arguments and without a shell.
//!
//! A target declares commands. A command that changes something has, besides its program and arguments, a program that
//! prints the present state (compared before the action), and one that says whether the action of a key took effect
//! (exit code 0: it did; 1: it did not; anything else: unknown). Without them it is refused when the file is read: what
//! cannot be checked is not automated. A command may have a dry run, whose output is shown, and an undo, another
//! command of the target.

mod declared_commands;

use std::path::PathBuf;

use serde_json::{Map, Value};
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Operation, Run, Tool, ToolError, ToolSpec};

use crate::programs::{ProgramCall, ProgramOutput};
use crate::template::{Values, declared_operation};
use crate::{Context, Declared, SettingError, ToolKind};
use declared_commands::{Command, Program, Settings};

/// Largest state or dry run, in bytes.
const INNER_OUTPUT_BYTES: usize = 64 << 10;
/// Digits of the hash of a state in a precondition.
const STATE_DIGITS: usize = 32;

/// The `exec` tool.
#[derive(Debug)]
pub(crate) struct ExecTool {
    targets: Vec<Declared<Settings>>,
    context: Context,
}

impl ToolKind for ExecTool {
    const NAME: &'static str = "exec";
    type Settings = Settings;

    fn check_settings(settings: &Settings) -> Result<(), SettingError> {
        settings.check()
    }

    fn declared_operations(settings: &Settings) -> Option<Vec<String>> {
        Some(settings.commands.iter().map(|command| command.name.clone()).collect())
    }

    fn programs(settings: &Settings) -> Vec<PathBuf> {
        settings.commands.iter().flat_map(Command::programs).map(|program| program.program.clone()).collect()
    }

    fn new(targets: Vec<Declared<Settings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl ExecTool {
    fn command(&self, call: &ToolCall) -> Result<(&Settings, &Command), ToolError> {
        let target = self.targets.iter().find(|target| target.name() == call.target);
        let command = target.and_then(|target| {
            let command = target.settings.commands.iter().find(|command| command.name == call.operation)?;
            Some((&target.settings, command))
        });
        command.ok_or_else(|| ToolError::Invalid(format!("{:?} declares no command {:?}", call.target, call.operation)))
    }

    fn run(
        &self,
        settings: &Settings,
        program: &Program,
        (values, key): (&Values, Option<&str>),
        (timeout, output_bytes): (std::time::Duration, usize),
    ) -> Result<ProgramOutput, ToolError> {
        let mut environment = Vec::new();
        for (name, value) in &settings.environment {
            environment.push((name.clone(), self.context.secrets.resolve(value)?.as_str().to_owned()));
        }
        if let Some(key) = key {
            environment.push(("WARDROOM_IDEMPOTENCY_KEY".to_owned(), key.to_owned()));
        }
        self.context.programs.run(&ProgramCall {
            program: program.program.clone(),
            arguments: fill_arguments(&program.arguments, values)?,
            environment,
            folder: settings.folder.clone(),
            input: String::new(),
            timeout,
            output_bytes,
        })
    }

    /// Runs a program that changes nothing and returns its output.
    fn ask(&self, settings: &Settings, program: &Program, values: &Values) -> Result<String, ToolError> {
        let output =
            self.run(settings, program, (values, None), (declared_commands::ASK_TIMEOUT, INNER_OUTPUT_BYTES))?;
        match output.code {
            Some(0) if output.truncated => {
                Err(ToolError::Invalid(format!("it prints more than {INNER_OUTPUT_BYTES} bytes")))
            }
            Some(0) => Ok(output.stdout),
            _ => Err(ToolError::Unavailable(format!("{}: {}", program.program.display(), output.failure()))),
        }
    }

    fn state_of(
        &self,
        settings: &Settings,
        command: &Command,
        arguments: &Map<String, Value>,
    ) -> Result<String, ToolError> {
        let state = command.state.as_ref().ok_or_else(|| ToolError::Invalid("the command only reads".to_owned()))?;
        let text = self.ask(settings, state, &Values::new(arguments, None))?;
        // A hash: the state may hold a credential, and is compared only.
        let digits: String = sha256_hex(text.as_bytes()).chars().take(STATE_DIGITS).collect();
        Ok(format!("state sha256 {digits}"))
    }
}

/// Fills the arguments of a program. A value that begins a word must not begin with `-`: it would be an option.
fn fill_arguments(templates: &[String], values: &Values) -> Result<Vec<String>, ToolError> {
    let mut ended_options = false;
    let mut words = Vec::new();
    for template in templates {
        let word = values.fill(template, str::to_owned)?;
        if word.contains('\0') {
            return Err(ToolError::Invalid("an argument contains a zero byte".to_owned()));
        }
        if template.starts_with('{') && word.starts_with('-') && !ended_options {
            let remedy = "put `--` before it in the declared arguments if the program knows that";
            return Err(ToolError::Invalid(format!("an argument begins with `-` and would be an option; {remedy}")));
        }
        ended_options |= word == "--";
        words.push(word);
    }
    Ok(words)
}

/// Describes what is run, for the dry run: the words as they are, quoted where a shell would.
fn describe(program: &Program, values: &Values) -> Result<String, ToolError> {
    let is_plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte))
    };
    let quote = |word: String| if is_plain(&word) { word } else { format!("'{}'", word.replace('\'', "'\\''")) };
    let words = fill_arguments(&program.arguments, values)?.into_iter().map(quote);
    let words: Vec<String> = [program.program.display().to_string()].into_iter().chain(words).collect();
    Ok(words.join(" "))
}

impl Tool for ExecTool {
    fn spec(&self) -> ToolSpec {
        let operations = self.targets.iter().flat_map(|target| self.operations(target.name())).collect();
        ToolSpec::new("exec", "commands that the executor's file declares", operations)
    }

    fn operations(&self, target: &str) -> Vec<Operation> {
        let declared = self.targets.iter().filter(|declared| declared.name() == target);
        let commands = declared.flat_map(|declared| &declared.settings.commands);
        commands
            .map(|command| {
                let flags = (command.risk, command.read_only, command.undo.is_some() || command.read_only);
                declared_operation(&command.name, &command.summary, &command.arguments, flags)
            })
            .collect()
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        let (_, command) = self.command(call)?;
        let values = Values::new(&call.arguments, Some("key"));
        command.programs().try_for_each(|program| fill_arguments(&program.arguments, &values).map(drop))
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let (settings, command) = self.command(call)?;
        let values = Values::new(&call.arguments, None);
        let precondition = self.state_of(settings, command, &call.arguments)?;
        let run = describe(&command.run, &Values::new(&call.arguments, Some("KEY")))?;
        let diff = match &command.dry_run {
            Some(dry_run) => {
                let text = self.ask(settings, dry_run, &values)?;
                format!("{run}: {}", text.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            None => run,
        };
        let undo = match &command.undo {
            Some(undo) => {
                let arguments = values.fill_json(&Value::Object(undo.arguments.clone()))?;
                let arguments = arguments.as_object().cloned().unwrap_or_default();
                Some(ToolCall { operation: undo.command.clone(), arguments, ..call.clone() })
            }
            None => None,
        };
        Ok(DryRun {
            diff,
            blast_radius: settings.blast_radius.clone(),
            affected: None,
            risk: command.risk.as_str().to_owned(),
            reversible: undo.is_some(),
            precondition,
            undo,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let (settings, command) = self.command(call)?;
        if self.probe(call, run.precondition, run.key)? == Outcome::Applied {
            return Ok(Applied::new(Outcome::Applied, "it was applied before"));
        }
        let found = self.state_of(settings, command, &call.arguments)?;
        if found != run.precondition {
            return Err(ToolError::Stale(format!("the target is at {found}, the plan expects {}", run.precondition)));
        }
        let values = Values::new(&call.arguments, Some(run.key));
        let limits = (run.timeout, declared_commands::RUN_OUTPUT_BYTES);
        let output = self.run(settings, &command.run, (&values, Some(run.key)), limits)?;
        if output.timed_out {
            return Err(ToolError::Unavailable(output.failure()));
        }
        // The exit code is not trusted in either direction: the effect is probed.
        let outcome = self.probe(call, run.precondition, run.key)?;
        let detail = match (outcome, output.code) {
            (Outcome::Applied, Some(0)) => format!("{} done", call.operation),
            (Outcome::Applied, _) => format!("applied, although {}", output.failure()),
            (Outcome::NotApplied, Some(0)) => "the command reported success, but the change did not take effect".into(),
            (_, _) => output.failure(),
        };
        let text = [output.stdout, output.stderr].join("\n");
        Ok(Applied { outcome, detail, output: text.trim().to_owned() })
    }

    fn probe(&self, call: &ToolCall, _precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let (settings, command) = self.command(call)?;
        let probe = command.probe.as_ref().ok_or_else(|| ToolError::Invalid("the command only reads".to_owned()))?;
        let values = Values::new(&call.arguments, Some(key));
        let output =
            self.run(settings, probe, (&values, Some(key)), (declared_commands::ASK_TIMEOUT, INNER_OUTPUT_BYTES))?;
        if output.timed_out {
            return Err(ToolError::Unavailable(output.failure()));
        }
        Ok(match output.code {
            Some(0) => Outcome::Applied,
            Some(1) => Outcome::NotApplied,
            _ => Outcome::Unknown,
        })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        let (settings, command) = self.command(call)?;
        self.state_of(settings, command, &call.arguments)
    }

    fn read(&self, call: &ToolCall, timeout: std::time::Duration) -> Result<Value, ToolError> {
        let (settings, command) = self.command(call)?;
        let values = Values::new(&call.arguments, None);
        let output =
            self.run(settings, &command.run, (&values, None), (timeout, declared_commands::RUN_OUTPUT_BYTES))?;
        if output.timed_out {
            return Err(ToolError::Unavailable(output.failure()));
        }
        Ok(serde_json::json!({ "exit_code": output.code, "stdout": output.stdout, "stderr": output.stderr,
            "truncated": output.truncated }))
    }
}
