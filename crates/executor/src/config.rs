//! Configuration of the executor: targets with credentials, approvers with token hashes.

pub(crate) mod private_file;
mod yaml;

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use url::Url;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::config_check::MAX_MINUTES;
use wardroom_domain::executor::ListedApprover;
use wardroom_domain::identity::token_id;
use wardroom_domain::{Principal, TenantId};
use wardroom_tools::{Secret, Target};

use private_file::read_private_file;

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Digits of a credential's hash that are shown; too few to test guesses against.
const SHOWN_HASH_DIGITS: usize = 4;

/// Default of [`ExecutorConfig::undo_minutes`].
const DEFAULT_UNDO_MINUTES: u64 = 60;

/// The file given by `--executor-config`: a regular file of the user that runs the executor, and only its owner may
/// read it (mode 0600). A user who can change it decides who approves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Principals that may approve plans.
    pub approvers: Vec<Approver>,
    /// Targets of tool calls.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Time after an execution in which it can be undone, in minutes; at least `respond.verify-timeout` and
    /// `respond.hold` together. Default 60. Since 0.1.
    #[serde(default = "default_undo_minutes")]
    pub undo_minutes: u64,
}

const fn default_undo_minutes() -> u64 {
    DEFAULT_UNDO_MINUTES
}

/// An approver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Approver {
    /// Name in plans and in the audit log.
    pub principal: Principal,
    /// Tenant whose plans they may approve.
    pub tenant: TenantId,
    /// SHA-256 of their bearer token, in hex.
    pub token_sha256: String,
}

impl ExecutorConfig {
    /// Reads and validates the file.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let with_path = |error: String| format!("{}: {error}", path.display());
        let text = read_private_file(path).map_err(with_path)?;
        let config: Self = yaml::parse(&text).map_err(with_path)?;
        config.check_approvers().and_then(|()| config.check_targets()).map_err(with_path)?;
        if !(1..=MAX_MINUTES).contains(&config.undo_minutes) {
            let found = config.undo_minutes;
            return Err(with_path(format!("field undo-minutes: {found} is not in 1 to {MAX_MINUTES}")));
        }
        Ok(config)
    }

    /// Checks that each approver can be recognised by their token. A hash with anything before or after it, such as the
    /// output of `sha256sum`, would match no token.
    fn check_approvers(&self) -> Result<(), String> {
        for (index, approver) in self.approvers.iter().enumerate() {
            let field = format!("field approvers[{index}].token-sha256");
            let hash = approver.token_sha256.as_str();
            if hash.len() != SHA256_DIGITS || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                let found = format!("{field}: {} characters, which are not {SHA256_DIGITS}", hash.chars().count());
                return Err(format!(
                    "{found} hexadecimal digits; write what `printf %s TOKEN | sha256sum | cut -c1-64` prints"
                ));
            }
            let is_same = |other: &&Approver| {
                other.tenant == approver.tenant && other.token_sha256.eq_ignore_ascii_case(&approver.token_sha256)
            };
            if let Some(other) = self.approvers.iter().take(index).find(is_same) {
                let (one, two) = (&other.principal, &approver.principal);
                return Err(format!("{field}: {one} and {two} have the same token; create one for each approver"));
            }
        }
        Ok(())
    }

    /// Checks that each target names a tool and operations that exist, and can be told from the tenant's others.
    fn check_targets(&self) -> Result<(), String> {
        let specs: Vec<_> = wardroom_tools::tools(&[]).iter().map(|tool| tool.spec()).collect();
        for (index, target) in self.targets.iter().enumerate() {
            let field = format!("field targets[{index}]");
            let Some(spec) = specs.iter().find(|spec| spec.name == target.tool) else {
                let known: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
                return Err(format!("{field}.tool: there is no tool of this name; use {}", known.join(", ")));
            };
            let known: Vec<&str> = spec.operations.iter().map(|operation| operation.name).collect();
            let is_unknown = |operation: &String| !known.contains(&operation.as_str());
            if let Some(index) = target.operations.iter().flatten().position(is_unknown) {
                let known = known.join(", ");
                return Err(format!("{field}.operations[{index}]: there is no operation of this name; use {known}"));
            }
            check_url(&target.url).map_err(|reason| format!("{field}.url: {reason}"))?;
            if target.actions_per_hour == 0 {
                return Err(format!(
                    "{field}.actions-per-hour: 0 allows no action; give at least 1, or remove the target"
                ));
            }
            let is_same = |other: &&Target| {
                (&other.tenant, &other.tool, &other.name) == (&target.tenant, &target.tool, &target.name)
            };
            if self.targets.iter().take(index).any(|other| is_same(&other)) {
                let Target { tenant, name, tool, .. } = target;
                return Err(format!("{field}.name: tenant {tenant} has another target {name} of {tool}; remove one"));
            }
        }
        Ok(())
    }

    /// Returns the targets of a tenant: no call of another tenant's incident may reach them.
    pub(crate) fn targets_of(&self, tenant: &TenantId) -> Vec<Target> {
        self.targets.iter().filter(|target| target.tenant == *tenant).cloned().collect()
    }

    /// Returns the time after an execution in which it can be undone.
    pub(crate) const fn undo_window(&self) -> Duration {
        Duration::from_secs(self.undo_minutes.saturating_mul(60))
    }

    /// Returns the approvers without the hashes of their tokens.
    pub(crate) fn listed(&self) -> Vec<ListedApprover> {
        let listed = |approver: &Approver| ListedApprover {
            principal: approver.principal.clone(),
            tenant: approver.tenant.clone(),
            token_id: token_id(&approver.token_sha256.to_ascii_lowercase()),
        };
        self.approvers.iter().map(listed).collect()
    }

    /// Returns the settings other than the approvers. Of a credential only the start of its hash is shown, which tells
    /// whether it changed.
    pub(crate) fn settings_without_secrets(&self) -> Value {
        let hidden = |secret: &Secret| -> String {
            sha256_hex(secret.expose_secret().as_bytes()).chars().take(SHOWN_HASH_DIGITS).collect()
        };
        let target = |target: &Target| {
            let Target { tool, tenant, name, url, token, operations, actions_per_hour } = target;
            json!({ "tenant": tenant, "tool": tool, "name": name, "url": url, "operations": operations,
                "actions-per-hour": actions_per_hour, "token-sha256-start": token.as_ref().map(hidden) })
        };
        let targets: Vec<Value> = self.targets.iter().map(target).collect();
        json!({ "targets": targets, "undo-minutes": self.undo_minutes })
    }

    /// Returns the approver of a tenant with this token. Compares in constant time.
    pub(crate) fn authenticate(&self, tenant: &TenantId, token: &str) -> Option<&Principal> {
        let digest = sha256_hex(token.as_bytes());
        self.approvers
            .iter()
            .find(|approver| {
                approver.tenant == *tenant
                    && bool::from(approver.token_sha256.to_ascii_lowercase().as_bytes().ct_eq(digest.as_bytes()))
            })
            .map(|approver| &approver.principal)
    }

    /// Returns whether a principal is an approver of a tenant.
    pub(crate) fn is_approver(&self, tenant: &TenantId, principal: &Principal) -> bool {
        self.approvers.iter().any(|approver| approver.tenant == *tenant && approver.principal == *principal)
    }
}

/// Checks the base URL of a target. The reason does not repeat it: a credential may be in it.
fn check_url(text: &str) -> Result<(), String> {
    let url: Url =
        text.parse().map_err(|error| format!("it is not a URL ({error}), such as https://host:8443/path"))?;
    // The `url` crate would read `http:host`, and other spellings, as `http://host`.
    let has_scheme = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    if !has_scheme || !url.has_host() {
        return Err("it is not a URL with http:// or https:// and a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user or a password, which the audit log would show; use the field token".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has `?` or `#`, but paths are appended to it; remove what follows".to_owned());
    }
    Ok(())
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

    fn load(approvers: &[(&str, &str)]) -> Result<ExecutorConfig, String> {
        let entry = |(principal, hash): &(&str, &str)| {
            format!("  - {{ principal: {principal}, tenant: main, token-sha256: {} }}\n", serde_json::json!(hash))
        };
        load_text(&format!("approvers:\n{}", approvers.iter().map(entry).collect::<String>()))
    }

    #[test]
    fn a_hash_that_matches_no_token_is_refused_when_the_file_is_read() {
        let hash = sha256_hex(b"token");
        assert!(load(&[("alice", &hash), ("bob", &sha256_hex(b"other").to_uppercase())]).is_ok());
        for wrong in [
            format!("{hash}  -"),
            format!("{hash}\n"),
            format!(" {hash}"),
            format!("{hash}00"),
            format!("sha256:{hash}"),
            hash.replace(|_: char| true, "g"),
            hash.chars().skip(1).collect(),
            "wr_the-token-itself".to_owned(),
            String::new(),
        ] {
            let error = load(&[("bob", &sha256_hex(b"other")), ("alice", &wrong)]).unwrap_err();
            assert!(error.contains("approvers[1].token-sha256") && error.contains("sha256sum"), "{wrong:?}: {error}");
            assert!(wrong.is_empty() || !error.contains(wrong.trim()), "{error} does not repeat what may be a secret");
        }
        let error = load(&[("alice", &hash), ("bob", &hash.to_uppercase())]).unwrap_err();
        assert!(error.contains("alice and bob have the same token"), "{error}");
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
            (["name: cart, owner: main", "name: mail"], "field targets[0], line 3, column"),
            (["name: cart", "name: mail, actions-per-hour: 0"], "targets[1].actions-per-hour: 0 allows no action"),
        ] {
            let error = load_targets(&targets).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let load_one = |tool: &str, url: &str| {
            load_text(&format!("approvers: []\ntargets: [{{ tool: {tool}, name: a, url: '{url}' }}]\n"))
        };
        assert!(load_one("process", "https://control.example").is_ok());
        assert!(load_one("shell", "http://a").unwrap_err().contains("no tool of this name; use process"));
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
            let text =
                format!("approvers:\n  - principal: a\n    tenant: main\n    token-sha256: x\ntargets:\n{target}");
            let error = load_text(&text).unwrap_err();
            assert!(!error.to_lowercase().contains(SECRET), "{target}: {error}");
            assert!(error.contains(place) && error.contains("executor.yaml: "), "{target}: {error}");
        };
        let target = |fields: &str| format!("  - tool: process\n    name: a\n{fields}");
        for (fields, place) in [
            ("    url: http://a\n    token: s3kret\n    colour: blue\n", "field targets[0], line 10"),
            ("    colour: blue\n    url: http://a\n    token: s3kret\n", "field targets[0], line 8"),
            ("    url: http://a\n    token: [s3kret]\n", "field targets[0].token, line 9"),
            ("    url: http://a\n    token: { s3kret: s3kret }\n", "field targets[0].token, line 9"),
            ("    url: http://a\n    token:\n      s3kret: 1\n", "field targets[0].token"),
            (
                "    url: http://a\n    token: s3kret\n    actions-per-hour: s3kret\n",
                "field targets[0].actions-per-hour",
            ),
            ("    url: http://a\n    token: s3kret\n   name: b\n", "line"),
            ("    url: http://a\n    token: s3kret\n\tname: b\n", "line"),
            ("    url: http://a\n    token: s3kret\n    token: s3kret\n", "line"),
            ("    url: http://a\n    token:s3kret\n", "line"),
            ("    url: http://a\n    token:s3kret\n    operations: []\n", "line"),
            ("    url: http://a\n    token: \"s3kret\n", "line"),
            ("    url: http://a\n    token: *s3kret\n", "line"),
            ("    url: http://a\n    token: !s3kret x\n    colour: blue\n", "line"),
            ("    url: http://a\n    s3kret\n", "line"),
            ("    url: http://a\n    s3kret: s3kret\n", "field targets[0], line"),
            ("    url: http://s3kret:s3kret@\n", "field"),
            ("    url: http://a\n    tenant: 's3kret s3kret'\n", "field targets[0].tenant"),
            ("    url: http://a\n    token: &t s3kret\n    operations: *t\n", "field targets[0].operations"),
            ("    url: http://a\n    token: s3kret\n    operations: s3kret\n", "field targets[0].operations"),
            ("    token: s3kret\n", "the field url is missing"),
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
        wrong("  - { tool: process, name: a, url: 'http://a', token:s3kret }\n", "line");
        wrong("  - { tool: process, name: a, url: 'http://a', token, s3kret }\n", "line");
        wrong("  s3kret\n", "line");
        wrong("  - s3kret\n", "line");
        wrong(&format!("{}---\ntoken: s3kret\n", target("    url: http://a\n    token: s3kret\n")), "line");
        wrong(&format!("{}s3kret: 1\n", target("    url: http://a\n    token: s3kret\n")), "line");
    }
}
