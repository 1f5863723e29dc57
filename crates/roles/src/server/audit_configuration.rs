//! Records in the audit log with which configuration the server starts and the executor works, when it differs from the
//! last one.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardroom_domain::TenantId;
use wardroom_domain::canonical::canonical_json;
use wardroom_domain::executor::ListedApprover;
use wardroom_edge::AuthMode;
use wardroom_store::Store;

use super::serve_options::ServeOptions;
use crate::clock;
use crate::config::Config;
use wardroom_response::audit_entry;

/// The action of the entries on the server's configuration.
const ACTION: &str = "configure";
/// The action of the entries on the executor's configuration.
const EXECUTOR_ACTION: &str = "configure_executor";

/// Settings by name, such as `detect.z-warning`, and options, such as `--auth`.
type Settings = BTreeMap<String, Value>;

/// Writes an audit entry if the settings differ from those of the latest entry: what changed, and every setting that is
/// not the default.
///
/// # Errors
/// Returns an error if the store cannot be read or written.
pub(super) async fn audit_configuration(
    store: &Store,
    options: &ServeOptions,
    config: &Config,
) -> Result<(), wardroom_store::Error> {
    record(store, ACTION, settings(options, config)).await
}

/// Writes an audit entry if the executor's settings differ from those of the latest entry: approvers, targets, limits.
///
/// # Errors
/// Returns an error if the store cannot be read or written.
pub(super) async fn audit_executor_configuration(
    store: &Store,
    approvers: &[ListedApprover],
    settings: &Value,
) -> Result<(), wardroom_store::Error> {
    let mut flat = Settings::new();
    flatten("", settings.clone(), &mut flat);
    flat.insert("approvers".to_owned(), json!(approvers));
    record(store, EXECUTOR_ACTION, as_stored(flat)).await
}

async fn record(store: &Store, action: &str, settings: Settings) -> Result<(), wardroom_store::Error> {
    let latest = store.latest_audit_entry(action).await?;
    let known = latest.and_then(|entry| serde_json::from_value::<Settings>(entry.decision["settings"].clone()).ok());
    if known.as_ref() == Some(&settings) {
        return Ok(());
    }
    let changed = changes(&known.unwrap_or_default(), &settings);
    let decision = json!({ "changed": changed, "settings": settings });
    store.append_audit(&audit_entry(&TenantId::main(), "operator", None, action, decision, clock::now())).await
}

/// Settings as they are read back from an entry: canonical JSON has one form for 3 and 3.0.
fn as_stored(settings: Settings) -> Settings {
    let stored = canonical_json(&settings).ok().and_then(|text| serde_json::from_str(&text).ok());
    stored.unwrap_or(settings)
}

/// Returns the settings that are not the default, and the options.
fn settings(options: &ServeOptions, config: &Config) -> Settings {
    let flat = |config: &Config| {
        let mut settings = Settings::new();
        flatten("", serde_json::to_value(config.with_hidden_secrets()).unwrap_or_default(), &mut settings);
        settings
    };
    let defaults = flat(&Config::default());
    let mut settings = flat(config);
    settings.retain(|name, value| defaults.get(name) != Some(value));
    settings.insert("--auth".to_owned(), json!(if options.auth == AuthMode::On { "on" } else { "off" }));
    settings.insert("--listen".to_owned(), json!(options.listen));
    settings.insert("--executor-config".to_owned(), json!(options.executor));
    as_stored(settings)
}

fn flatten(prefix: &str, value: Value, settings: &mut Settings) {
    match value {
        Value::Object(fields) if !fields.is_empty() || prefix.is_empty() => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                flatten(&name, value, settings);
            }
        }
        value => {
            settings.insert(prefix.to_owned(), value);
        }
    }
}

/// Returns old and new value of each setting that differs; null stands for the default.
fn changes(old: &Settings, new: &Settings) -> BTreeMap<String, Value> {
    let names = old.keys().chain(new.keys());
    let changed = names.filter(|name| old.get(*name) != new.get(*name));
    changed.map(|name| (name.clone(), json!({ "from": old.get(name), "to": new.get(name) }))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(auth: AuthMode) -> ServeOptions {
        ServeOptions {
            data: "data".into(),
            listen: "127.0.0.1:8080".parse().unwrap(),
            auth,
            admin_token_file: None,
            executor: false,
            query_workers: false,
        }
    }

    #[tokio::test]
    async fn each_change_at_a_start_has_one_entry() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wardroom.db")).await.unwrap();
        let mut config = Config::default();
        let entries = async |config: &Config, auth: AuthMode| {
            audit_configuration(&store, &options(auth), config).await.unwrap();
            store.verify_audit().await.unwrap().entries
        };
        assert_eq!(entries(&config, AuthMode::On).await, 1, "the first start");
        assert_eq!(entries(&config, AuthMode::On).await, 1, "nothing changed");
        config.edge.idle_timeout_seconds = 7;
        config.detect.z_warning = 7.0;
        config.lake.options.insert("aws_secret_access_key".into(), "first-secret".into());
        assert_eq!(entries(&config, AuthMode::On).await, 2);
        assert_eq!(entries(&config, AuthMode::On).await, 2, "nothing changed, the whole number included");
        let entry = store.latest_audit_entry(ACTION).await.unwrap().unwrap();
        assert_eq!(entry.decision["changed"]["edge.idle-timeout-seconds"], json!({ "from": null, "to": 7 }));
        assert!(!entry.text().unwrap().contains("first-secret"), "{entry:?}");
        config.lake.options.insert("aws_secret_access_key".into(), "second-secret".into());
        assert_eq!(entries(&config, AuthMode::On).await, 3, "another secret is a change");
        assert_eq!(entries(&config, AuthMode::Off).await, 4);
        let entry = store.latest_audit_entry(ACTION).await.unwrap().unwrap();
        assert_eq!(entry.decision["changed"], json!({ "--auth": { "from": "on", "to": "off" } }));
    }

    #[tokio::test]
    async fn each_change_of_the_executors_file_has_one_entry() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wardroom.db")).await.unwrap();
        let alice = ListedApprover {
            principal: wardroom_domain::Principal::new("alice").unwrap(),
            tenant: TenantId::main(),
            proof: wardroom_domain::executor::ProofKind::Token,
            token_id: "tok_1".to_owned(),
            key: String::new(),
        };
        let target = |url: &str| json!({ "targets": [{ "name": "cart", "url": url }], "undo-minutes": 60 });
        let entries = async |approvers: &[ListedApprover], settings: &Value| {
            audit_executor_configuration(&store, approvers, settings).await.unwrap();
            store.verify_audit().await.unwrap().entries
        };
        let (a, b) = (target("http://a"), target("http://b"));
        assert_eq!(entries(&[], &a).await, 1, "the first start");
        assert_eq!(entries(&[], &a).await, 1, "nothing changed");
        assert_eq!(entries(&[alice], &a).await, 2);
        assert_eq!(entries(&[], &b).await, 3);
        let entry = store.latest_audit_entry(EXECUTOR_ACTION).await.unwrap().unwrap();
        let changed: Vec<&String> = entry.decision["changed"].as_object().unwrap().keys().collect();
        assert_eq!(changed, ["approvers", "targets"]);
    }
}
