//! Configuration of the executor: targets with credentials, and who may approve.

pub(crate) mod approvers;
pub(crate) mod browser_approvers;
pub(crate) mod config_file;
pub(crate) mod private_file;
mod yaml;

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use ssh_key::public::KeyData;
use wardroom_domain::config_check::{ConfigProblems, MAX_MINUTES};
use wardroom_domain::executor::ListedApprover;
use wardroom_domain::{AccessRole, Principal, TenantId, ToolCall};
use wardroom_identity::jwk_set::JwkSet;
use wardroom_policy::{Autonomy, Config as PolicyConfig, Policy};
use wardroom_tools::{SecretsConfig, SettingError, Target};

use crate::approval::allowed_signers::Signer;
use crate::audit_publisher::HeadDestination;
use crate::policy_file::PolicyFile;
use approvers::{Approver, Approvers};
use browser_approvers::{ApprovalIssuer, BrowserProofs, ListedAccount, ListedPasskey};
use private_file::read_private_file;

/// Default of [`ExecutorConfig::undo_minutes`].
const DEFAULT_UNDO_MINUTES: u64 = 60;

/// The file given by `--executor-config`: a regular file of the user that runs the executor, and only its owner may
/// read it (mode 0600). A user who can change it decides who approves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Who may approve plans.
    pub approvers: Vec<Approver>,
    /// Targets of tool calls.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Where the targets' credentials are, if they are references. Since 0.2.
    #[serde(default)]
    pub secrets: SecretsConfig,
    /// Time after an execution in which it can be undone, in minutes; at least `respond.verify-timeout` and
    /// `respond.hold` together. Default 60. Since 0.1.
    #[serde(default = "default_undo_minutes")]
    pub undo_minutes: u64,
    /// The policy that the executor asks by itself, as the section `policy` of the server's configuration; a relative
    /// `file` is in the folder of this file. Default: the built-in policy. Since 0.2.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// Places outside of the data folder to which signed heads of the audit log are published, every minute or 100
    /// entries. Read when the executor starts. Default: none. Since 0.2.
    #[serde(default)]
    pub audit_heads: Vec<HeadDestination>,
    /// Actions that may run without approval where the policy permits it. Default: none. Since 0.2.
    #[serde(default)]
    pub autonomy: Vec<AutonomousAction>,
    /// How approvals from a browser are verified. Default: none is accepted. Since 0.2.
    #[serde(default)]
    pub browser: BrowserProofs,
    /// The approvers, checked.
    #[serde(skip)]
    checked: Approvers,
    /// The policy's file; absent for the built-in policy.
    #[serde(skip)]
    policy_file: Option<PolicyFile>,
    /// The issuer of the ID token of a request, with its keys.
    #[serde(skip)]
    pub(crate) issuer_keys: Option<(ApprovalIssuer, JwkSet)>,
}

/// An action that has earned to run without approval. An operator writes it here: the server cannot.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AutonomousAction {
    /// The tool.
    pub tool: String,
    /// The operation of the tool.
    pub operation: String,
    /// The target; default: every one.
    #[serde(default)]
    pub target: Option<String>,
    /// `night` or `automatic`.
    pub level: Autonomy,
}

const fn default_undo_minutes() -> u64 {
    DEFAULT_UNDO_MINUTES
}

impl ExecutorConfig {
    /// Reads and validates the file.
    ///
    /// # Errors
    /// Returns the file, the field, the reason and a remedy, without anything that may be a credential.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        Self::parse(path, &Self::read_text(path)?)
    }

    /// Reads the file, after checking that no other user can read or replace it.
    fn read_text(path: &Path) -> Result<String, String> {
        read_private_file(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Parses and validates the text of the file, and the policy's file.
    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let with_path = |error: String| format!("{}: {error}", path.display());
        let mut config: Self = yaml::parse(text).map_err(with_path)?;
        config.checked = Approvers::read(&config.approvers).map_err(with_path)?;
        config.browser.check().map_err(with_path)?;
        for issuer in &mut config.browser.issuers {
            // A relative path is in the folder of this file.
            issuer.ca_file = issuer.ca_file.take().map(|file| path.parent().unwrap_or(path).join(file));
        }
        config.check_targets().map_err(with_path)?;
        config.check_policy(path).map_err(with_path)?;
        for (index, place) in config.audit_heads.iter().enumerate() {
            place.check().map_err(|reason| with_path(format!("field audit-heads[{index}]: {reason}")))?;
        }
        if !(1..=MAX_MINUTES).contains(&config.undo_minutes) {
            let found = config.undo_minutes;
            return Err(with_path(format!("field undo-minutes: {found} is not in 1 to {MAX_MINUTES}")));
        }
        Ok(config)
    }

    /// Checks the targets and where credentials are.
    fn check_targets(&self) -> Result<(), String> {
        let problem = |error: SettingError| format!("field {error}");
        wardroom_tools::check_targets(&self.targets).map_err(problem)?;
        self.secrets.check().map_err(problem)
    }

    /// Checks the policy, and finds its file.
    fn check_policy(&mut self, path: &Path) -> Result<(), String> {
        let mut problems = ConfigProblems::default();
        self.policy.check(&mut problems);
        if let Some(first) = problems.into_lines().into_iter().next() {
            return Err(first);
        }
        if let (Some(file), Some(folder)) = (&mut self.policy.file, path.parent()) {
            *file = folder.join(&*file);
            let read = PolicyFile::read(file).map_err(|error| format!("field policy.file: {error}"))?;
            self.policy_file = Some(read);
        }
        Ok(())
    }

    /// Returns whether the policy's file has the text that was parsed.
    fn is_policy_unchanged(&self) -> bool {
        self.policy_file.as_ref().is_none_or(PolicyFile::is_unchanged)
    }

    /// Returns the policy of the file that is named; `None` if it is the built-in one.
    pub(crate) fn policy_in_force(&self) -> Option<&Policy> {
        self.policy_file.as_ref().map(|file| &file.policy)
    }

    /// Returns what a call may do without approval, as an operator has declared.
    pub(crate) fn autonomy_of(&self, call: &ToolCall) -> Autonomy {
        let fits = |action: &&AutonomousAction| {
            action.tool == call.tool
                && action.operation == call.operation
                && action.target.as_ref().is_none_or(|target| *target == call.target)
        };
        self.autonomy.iter().find(fits).map_or(Autonomy::Ask, |action| action.level)
    }

    /// Returns the targets of a tenant: no call of another tenant's incident may reach them.
    pub(crate) fn targets_of(&self, tenant: &TenantId) -> Vec<Target> {
        self.targets.iter().filter(|target| target.tenant == *tenant).cloned().collect()
    }

    /// Returns the target of a call, if it is the tenant's.
    pub(crate) fn target_of(&self, tenant: &TenantId, call: &ToolCall) -> Option<&Target> {
        let is_it =
            |target: &&Target| target.tenant == *tenant && target.tool == call.tool && target.name == call.target;
        self.targets.iter().find(is_it)
    }

    /// Returns the time after an execution in which it can be undone.
    pub(crate) const fn undo_window(&self) -> Duration {
        Duration::from_secs(self.undo_minutes.saturating_mul(60))
    }

    /// Returns the approvers without the hashes of their tokens.
    pub(crate) fn listed(&self) -> Vec<ListedApprover> {
        self.checked.listed()
    }

    /// Returns the settings other than the approvers. Of a credential only the start of its hash is shown, which tells
    /// whether it changed.
    pub(crate) fn settings_without_secrets(&self) -> Value {
        let targets: Vec<Value> = self.targets.iter().map(wardroom_tools::shown).collect();
        json!({ "targets": targets, "secrets": self.secrets, "undo-minutes": self.undo_minutes, "policy": self.policy,
            "audit-heads": self.audit_heads, "browser": self.browser })
    }

    /// Returns the programs that the tool runner may start.
    pub(crate) fn programs(&self) -> Vec<PathBuf> {
        wardroom_tools::programs_of(&self.targets)
    }

    /// Returns the approver of a tenant with this key.
    pub(crate) fn signer(&self, tenant: &TenantId, key: &KeyData) -> Option<&Signer> {
        self.checked.signer(tenant, key)
    }

    /// Returns the approver of a tenant whose token, listed with `proof: token`, this is.
    pub(crate) fn authenticate(&self, tenant: &TenantId, token: &str) -> Option<&Principal> {
        self.checked.authenticate(tenant, token)
    }

    /// Returns the approver's passkey of a tenant with this id.
    pub(crate) fn passkey(&self, tenant: &TenantId, id: &str) -> Option<&ListedPasskey> {
        self.checked.passkey(tenant, id)
    }

    /// Returns the approver's account of a tenant.
    pub(crate) fn account(&self, tenant: &TenantId, issuer: &str, subject: &str) -> Option<&ListedAccount> {
        self.checked.account(tenant, issuer, subject)
    }

    /// Returns whether an approval still counts; see [`Approvers::is_approver`].
    pub(crate) fn is_approver(&self, tenant: &TenantId, principal: &Principal, key: Option<&str>) -> bool {
        self.checked.is_approver(tenant, principal, key)
    }

    /// Returns the access role of an approver.
    pub(crate) fn role_of(&self, tenant: &TenantId, principal: &Principal) -> AccessRole {
        self.checked.role_of(tenant, principal)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load_text(text: &str) -> Result<ExecutorConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        ExecutorConfig::load(&path)
    }

    fn load_targets(targets: &[&str]) -> Result<ExecutorConfig, String> {
        let entry = |target: &&str| format!("  - {{ tool: process, url: 'http://127.0.0.1:1', {target} }}\n");
        load_text(&format!("approvers: []\ntargets:\n{}", targets.iter().map(entry).collect::<String>()))
    }

    #[test]
    fn each_target_belongs_to_one_tenant() {
        let config = load_targets(&["name: cart", "name: cart, tenant: other", "name: mail, tenant: other"]).unwrap();
        let names = |tenant: &str| {
            let targets = config.targets_of(&TenantId::new(tenant).unwrap());
            targets.iter().map(|target| target.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("main"), ["cart"], "the default is main");
        assert_eq!(names("other"), ["cart", "mail"]);
        assert_eq!((names("third"), names("Main")), (vec![], vec![]));
        assert_eq!(config.undo_window(), Duration::from_secs(3600));
    }

    #[test]
    fn targets_that_cannot_be_used_are_refused_when_the_file_is_read() {
        for (targets, expected) in [
            (["name: cart", "name: cart, tenant: main"], "targets[1].name: tenant main has another target cart"),
            (["name: cart", "name: mail, operations: [restart, reboot]"], "targets[1].operations[1]: there is no"),
            (["name: cart, tenant: 'a b'", "name: mail"], "not a valid name"),
            (["name: cart, owner: main", "name: mail"], "field targets[0]: there is a field that is not known"),
            (["name: cart", "name: mail, actions-per-hour: 0"], "targets[1].actions-per-hour: 0 allows no action"),
        ] {
            let error = load_targets(&targets).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let load_one = |tool: &str, url: &str| {
            load_text(&format!("approvers: []\ntargets: [{{ tool: {tool}, name: a, url: '{url}' }}]\n"))
        };
        assert!(load_one("process", "https://control.example").is_ok());
        assert!(load_one("shell", "http://a").unwrap_err().contains("no tool of this name; use "));
        for url in ["http://10.0.0.1:8080/control", "http://[::1]:80", "https://control.example/"] {
            assert!(load_one("process", url).is_ok(), "{url}");
        }
        for url in [
            "file:///etc/passwd",
            "http://",
            "https://",
            "http://a b/",
            "https://:99999",
            "http://h:99999",
            "http://[::",
            "http:/host",
            "host:80",
            "",
            "http://u:PW@host",
            "http://PW@host",
            "https://host/?token=PW",
            "http://host#PW",
        ] {
            let error = load_one("process", url).unwrap_err();
            assert!(error.contains("field targets[0].url: it ") && !error.contains("PW"), "{url}: {error}");
        }
        for (minutes, accepted) in [("0", false), ("1", true), ("1440", true), ("18446744073709551615", false)] {
            let loaded = load_text(&format!("approvers: []\nundo-minutes: {minutes}\n"));
            assert_eq!(loaded.is_ok(), accepted, "{minutes}");
            assert!(loaded.is_ok_and(|_| accepted) || !accepted);
        }
    }

    /// Regression: the text of a YAML error quoted the lines around it, and values and keys, to the server's clients.
    #[test]
    fn no_error_repeats_a_credential() {
        const SECRET: &str = "s3kret";
        let wrong = |target: &str, place: &str| {
            let text = format!("approvers: []\ntargets:\n{target}");
            let error = load_text(&text).unwrap_err();
            assert!(!error.to_lowercase().contains(SECRET), "{target}: {error}");
            assert!(error.contains(place) && error.contains("executor.yaml: "), "{target}: {error}");
        };
        let target = |fields: &str| format!("  - tool: process\n    name: a\n{fields}");
        for (fields, place) in [
            ("    url: http://a\n    token: s3kret\n    colour: blue\n", "field targets[0]: there is a field"),
            ("    colour: blue\n    url: http://a\n    token: s3kret\n", "field targets[0]: there is a field"),
            ("    url: http://a\n    token: [s3kret]\n", "field targets[0].token: the value must be text"),
            ("    url: http://a\n    token: { s3kret: s3kret }\n", "field targets[0].token: the value must be text"),
            ("    url: http://a\n    token:\n      s3kret: 1\n", "field targets[0].token"),
            (
                "    url: http://a\n    token: s3kret\n    actions-per-hour: s3kret\n",
                "field of a target actions-per-hour: ",
            ),
            ("    url: http://a\n    token: s3kret\n   name: b\n", "line"),
            ("    url: http://a\n    token: s3kret\n\tname: b\n", "line"),
            ("    url: http://a\n    token: s3kret\n    token: s3kret\n", "line"),
            ("    url: http://a\n    token:s3kret\n", "line"),
            ("    url: http://a\n    token:s3kret\n    operations: []\n", "line"),
            ("    url: http://a\n    token: \"s3kret\n", "line"),
            ("    url: http://a\n    token: *s3kret\n", "line"),
            ("    url: http://a\n    token: !s3kret x\n    colour: blue\n", "field targets[0]: there is a field"),
            ("    url: http://a\n    s3kret\n", "line"),
            ("    url: http://a\n    s3kret: s3kret\n", "field targets[0]: there is a field"),
            ("    url: http://s3kret:s3kret@\n", "field"),
            ("    url: http://a\n    tenant: 's3kret s3kret'\n", "field of a target tenant: "),
            ("    url: http://a\n    token: &t s3kret\n    operations: *t\n", "field of a target operations: "),
            ("    url: http://a\n    token: s3kret\n    operations: s3kret\n", "field of a target operations: "),
            ("    token: s3kret\n", "field targets[0].url: the field is missing"),
        ] {
            wrong(&target(fields), place);
        }
        // Values that are read, and that name nothing.
        for (targets, place) in [
            ("  - { tool: s3kret, name: a, url: 'http://a' }\n", "field targets[0].tool: "),
            ("  - { tool: process s3kret, name: a, url: 'http://a' }\n", "field targets[0].tool: "),
            ("  - { tool: process, name: a, url: 'http://a', operations: [s3kret] }\n", "targets[0].operations[0]: "),
        ] {
            let error = load_text(&format!("approvers: []\ntargets:\n{targets}")).unwrap_err();
            assert!(!error.contains(SECRET) && error.contains(place), "{error}");
        }
        wrong("  - { tool: process, name: a, url: 'http://a', token:s3kret }\n", "field targets[0]: there is");
        wrong("  - { tool: process, name: a, url: 'http://a', token, s3kret }\n", "field targets[0]: there is");
        wrong("  s3kret\n", "line");
        wrong("  - s3kret\n", "line");
        wrong(&format!("{}---\ntoken: s3kret\n", target("    url: http://a\n    token: s3kret\n")), "line");
        wrong(&format!("{}s3kret: 1\n", target("    url: http://a\n    token: s3kret\n")), "line");
    }
}
