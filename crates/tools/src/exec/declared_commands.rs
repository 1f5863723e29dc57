//! Fields of a target of `exec`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wardroom_respond::Risk;

use crate::programs::check_program;
use crate::template::{Argument, check_arguments, check_template, default_risk, names};
use crate::{Secret, SettingError};

/// Maximum duration of a program that changes nothing.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest output of a command that is kept, in bytes; the target's limit applies after the redaction.
pub(super) const RUN_OUTPUT_BYTES: usize = 1 << 20;

/// Fields of a target of `exec`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// What the commands act on and who is affected, in one line: it is shown with every plan.
    pub blast_radius: String,
    /// The commands.
    pub commands: Vec<Command>,
    /// Working folder. Default `/`.
    #[serde(default = "default_folder")]
    pub folder: PathBuf,
    /// Environment of all programs. Each has `PATH`, `HOME` (the working folder) and `LANG` besides, and while a
    /// command runs or is probed `WARDROOM_IDEMPOTENCY_KEY`.
    #[serde(default)]
    pub environment: BTreeMap<String, Secret>,
}

fn default_folder() -> PathBuf {
    PathBuf::from("/")
}

/// A declared command.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Command {
    /// Name of the operation.
    pub name: String,
    /// Description, one line.
    pub summary: String,
    /// What a mistake can cost: `low`, `medium` or `high`. Default `high`.
    #[serde(default = "default_risk")]
    pub risk: Risk,
    /// Whether it changes nothing. Then `state`, `probe`, `dry-run` and `undo` are left out.
    #[serde(default)]
    pub read_only: bool,
    /// Arguments, by name.
    #[serde(default)]
    pub arguments: BTreeMap<String, Argument>,
    /// The command itself. `{key}` is the idempotency key.
    pub run: Program,
    /// Prints what the command changes, as it is now: a change between dry run and execution makes the plan stale.
    #[serde(default)]
    pub state: Option<Program>,
    /// Says whether the action of `{key}` took effect: exit code 0 if it did, 1 if it did not, any other if that is
    /// unknown.
    #[serde(default)]
    pub probe: Option<Program>,
    /// Prints what the command would change, the same text for the same state.
    #[serde(default)]
    pub dry_run: Option<Program>,
    /// The command that undoes it.
    #[serde(default)]
    pub undo: Option<Undo>,
}

/// A program with its arguments. There is no shell: each entry is one word, whatever is put into it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Program {
    /// Absolute path. Only root or the user who runs Wardroom may be able to change the file.
    pub program: PathBuf,
    /// Arguments; `{name}` is replaced by an argument of the call, within the word.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// The command that undoes another one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Undo {
    /// Name of a command of the same target.
    pub command: String,
    /// Its arguments; `{name}` is replaced by an argument of the call.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

impl Command {
    /// Returns all programs.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        [Some(&self.run), self.state.as_ref(), self.probe.as_ref(), self.dry_run.as_ref()].into_iter().flatten()
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        let wrong = |field: &str, reason: &str| Err(SettingError::new(field, reason));
        if self.commands.is_empty() {
            return wrong("commands", "there must be at least one");
        }
        if !self.folder.is_absolute() {
            return wrong("folder", "it must be an absolute path");
        }
        self.environment.iter().try_for_each(|(name, value)| value.check(&format!("environment.{name}")))?;
        for (index, command) in self.commands.iter().enumerate() {
            let field = format!("commands[{index}]");
            if self.commands.iter().take(index).any(|other| other.name == command.name) {
                return wrong(&format!("{field}.name"), "another command has this name");
            }
            command.check(&field)?;
            self.check_undo(command, &field)?;
        }
        Ok(())
    }

    fn check_undo(&self, command: &Command, field: &str) -> Result<(), SettingError> {
        let Some(undo) = &command.undo else { return Ok(()) };
        let place = format!("{field}.undo");
        let undoing = self.commands.iter().find(|other| other.name == undo.command && !other.read_only);
        let Some(undoing) = undoing else {
            return Err(SettingError::new(
                place + ".command",
                "there is no command of this name that changes something",
            ));
        };
        let given: BTreeSet<&String> = undo.arguments.keys().collect();
        if given != undoing.arguments.keys().collect() {
            return Err(SettingError::new(place + ".arguments", "they must be those of the undoing command"));
        }
        for value in undo.arguments.values().filter_map(Value::as_str) {
            check_template(value, &command.arguments, false, &format!("{place}.arguments"))?;
        }
        Ok(())
    }
}

impl Command {
    fn check(&self, field: &str) -> Result<(), SettingError> {
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if !is_name(&self.name) {
            return Err(SettingError::new(format!("{field}.name"), "it has letters, digits, _ and - only"));
        }
        check_arguments(&self.arguments, &format!("{field}.arguments"))?;
        for (name, is_there) in [("state", self.state.is_some()), ("probe", self.probe.is_some())] {
            if is_there == self.read_only {
                let reason = if self.read_only {
                    "a command that is read only has none"
                } else {
                    "a command that changes something needs it: without it there is no telling whether it took effect"
                };
                return Err(SettingError::new(format!("{field}.{name}"), reason));
            }
        }
        if self.read_only && (self.dry_run.is_some() || self.undo.is_some()) {
            return Err(SettingError::new(format!("{field}.read-only"), "then there is neither dry-run nor undo"));
        }
        let named = [("run", Some(&self.run), true), ("state", self.state.as_ref(), false)];
        let more = [("probe", self.probe.as_ref(), true), ("dry-run", self.dry_run.as_ref(), false)];
        for (name, program, with_key) in named.into_iter().chain(more) {
            let Some(program) = program else { continue };
            let place = format!("{field}.{name}");
            check_program(&program.program).map_err(|reason| SettingError::new(format!("{place}.program"), reason))?;
            for (index, word) in program.arguments.iter().enumerate() {
                check_template(word, &self.arguments, with_key, &format!("{place}.arguments[{index}]"))?;
            }
        }
        let uses_key = |program: &Program| {
            program.arguments.iter().any(|word| names(word).is_ok_and(|names| names.contains(&crate::template::KEY)))
        };
        if self.probe.as_ref().is_some_and(|probe| uses_key(probe) && !uses_key(&self.run)) {
            let reason = "probe names {key}, and run does not: nothing would store it; if the program reads \
                          WARDROOM_IDEMPOTENCY_KEY, let probe read it, too";
            return Err(SettingError::new(format!("{field}.run.arguments"), reason));
        }
        Ok(())
    }
}
