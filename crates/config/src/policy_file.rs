//! The rules of the policy: the file that the configuration names, or the built-in ones.

use std::path::Path;

use wardroom_domain::config_check::ConfigProblems;
use wardroom_policy::{Config, Policy, SituationReport, lint, parse_situations, test_situations};

use crate::load::load;

/// Name of the setting.
const FIELD: &str = "policy.file";

/// Adds what is wrong with the policy's settings and rules.
pub(crate) fn check(config: &Config, problems: &mut ConfigProblems) {
    config.check(problems);
    if let Err(reason) = read_policy(config) {
        problems.add(FIELD, reason);
    }
}

/// Returns the text of the rules and where it is from.
///
/// # Errors
/// Returns reason and remedy if the file cannot be read.
fn read_policy_text(config: &Config) -> Result<(String, String), String> {
    let Some(file) = &config.file else {
        return Ok(("built-in".to_owned(), wardroom_policy::DEFAULT_POLICY.to_owned()));
    };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!("{name} cannot be read ({error}); correct the path, or leave it out for the built-in rules")
    })?;
    Ok((name, text))
}

/// Returns the rules.
///
/// # Errors
/// Returns every problem of the file, with line, rule and remedy.
pub fn read_policy(config: &Config) -> Result<Policy, String> {
    let (name, text) = read_policy_text(config)?;
    Policy::parse(&name, &text).map_err(|error| error.to_string())
}

/// Rules and settings for the command line.
#[derive(Clone, Debug)]
pub struct PolicyRules {
    /// Where the rules are from.
    pub name: String,
    /// Their text.
    pub text: String,
    /// Time windows, change freezes and declared targets.
    pub config: Config,
}

impl PolicyRules {
    /// Reads the rules of `file`, else those that a configuration file names, else the built-in ones.
    ///
    /// # Errors
    /// Returns reason and remedy if a file cannot be read, or the configuration is invalid.
    pub fn read(file: Option<&Path>, config: Option<&Path>) -> Result<Self, String> {
        let mut config = match config {
            Some(path) => load(Some(path)).map_err(|error| error.to_string())?.policy,
            None => Config::default(),
        };
        config.file = file.map(Path::to_owned).or(config.file);
        let (name, text) = read_policy_text(&config)?;
        Ok(Self { name, text, config })
    }

    /// Returns what is odd about the rules, one line each.
    ///
    /// # Errors
    /// Returns the problems of rules that cannot be used.
    pub fn lint(&self) -> Result<Vec<String>, String> {
        let policy = self.policy()?;
        Ok(lint(&policy, &self.text).iter().map(|finding| format!("{}: {finding}", self.name)).collect())
    }

    /// Asks the rules in the situations of a YAML file.
    ///
    /// # Errors
    /// Returns reason and remedy if the file cannot be read, or the rules cannot be used.
    pub fn ask(&self, situations: &Path) -> Result<SituationReport, String> {
        let name = situations.display();
        let text = std::fs::read_to_string(situations)
            .map_err(|error| format!("{name} cannot be read ({error}); write a YAML list of situations"))?;
        let situations = parse_situations(&text).map_err(|error| format!("{name}: {error}"))?;
        Ok(test_situations(&self.policy()?, &self.config, &situations))
    }

    fn policy(&self) -> Result<Policy, String> {
        Policy::parse(&self.name, &self.text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_rule_is_a_problem_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.cedar");
        std::fs::write(&file, "@id(\"a\")\npermit (principal, action == Action::\"delete\", resource);").unwrap();
        let config = Config { file: Some(file), ..Config::default() };
        let mut problems = ConfigProblems::default();
        check(&config, &mut problems);
        let line = problems.into_lines().join("\n");
        assert!(line.starts_with("field policy.file: ") && line.contains("rule a") && line.contains("line "), "{line}");
        let mut problems = ConfigProblems::default();
        check(&Config { file: Some(folder.path().join("missing")), ..Config::default() }, &mut problems);
        assert!(problems.into_lines().join("").contains("cannot be read"));
    }
}
