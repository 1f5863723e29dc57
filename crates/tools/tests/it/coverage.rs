//! Every tool of the registry has its contract suite, its bounds and its page: found by enumeration, not by memory.

use std::collections::BTreeMap;

use serde_json::Value;
use wardroom_tools::{TOOLS, schema};

/// Tools and the operations that their suites run. Those of `exec` and `http` are declared by the suites themselves.
const COVERED: &[(&str, &[&str])] = &[
    ("process", &["restart", "rollback", "settings"]),
    ("query_prometheus", &["instant", "range"]),
    ("http", &[]),
    ("exec", &[]),
    ("systemd", &["status", "restart", "start", "stop"]),
    ("terraform", &["plan", "apply"]),
    ("postgres", &["cancel", "terminate", "activity", "blocking", "connections", "replication", "tables", "databases"]),
    ("redis", &["kill_client", "info", "clients", "slowlog", "latency", "memory"]),
    #[cfg(feature = "kubernetes")]
    (
        "kubernetes",
        &[
            "restart",
            "undo",
            "scale",
            "set_image",
            "set_resources",
            "delete_pod",
            "cordon",
            "uncordon",
            "drain",
            "status",
            "pods",
        ],
    ),
    ("github", &["rerun_failed_jobs", "revert", "open_issue", "disable_workflow", "enable_workflow", "run"]),
    ("gcp", &["set_traffic", "reset_instance", "set_node_pool_size", "service"]),
    ("restart_validator_client", &["restart", "status"]),
];

#[test]
fn every_tool_has_a_suite_for_every_operation_and_a_page() {
    let covered: BTreeMap<&str, &[&str]> = COVERED.iter().copied().collect();
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tools");
    for tool in TOOLS {
        let described = tool.describe();
        let operations = described["operations"].as_array().unwrap();
        let names: Vec<&str> = operations.iter().map(|operation| operation["name"].as_str().unwrap()).collect();
        let expected = covered.get(tool.name).unwrap_or_else(|| panic!("{} has no contract suite", tool.name));
        assert_eq!(&names, expected, "{}: an operation has no suite", tool.name);
        let page = std::fs::read_to_string(docs.join(format!("{}.md", tool.name))).unwrap_or_default();
        for part in ["Least privilege", "Has run against"] {
            assert!(page.contains(part), "docs/tools/{}.md says nothing about {part:?}", tool.name);
        }
        for name in names {
            assert!(page.contains(&format!("`{name}`")), "docs/tools/{}.md does not name {name}", tool.name);
        }
    }
    assert_eq!(covered.len(), TOOLS.len(), "a suite is for a tool that does not exist");
}

#[test]
fn every_argument_has_bounds_and_a_description() {
    for tool in TOOLS {
        let described = tool.describe();
        for operation in described["operations"].as_array().unwrap() {
            let place = format!("{} {}", tool.name, operation["name"]);
            let arguments = &operation["arguments"];
            assert_eq!(
                schema::unknown_keywords(arguments),
                Vec::<String>::new(),
                "{place}: keywords that are not checked"
            );
            assert_eq!(schema::unbounded(arguments), Vec::<String>::new(), "{place}: no upper bound");
            assert_eq!(arguments["additionalProperties"], false, "{place}: unknown arguments are refused");
            for (name, argument) in arguments["properties"].as_object().into_iter().flatten() {
                let description = argument["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{place}: {name} is not described");
            }
        }
    }
}

#[test]
fn every_setting_is_described_and_credentials_are_not_shown() {
    for tool in TOOLS {
        let settings = tool.settings();
        assert_eq!(settings["additionalProperties"], false, "{}: unknown fields are refused", tool.name);
        let unknown = schema::unknown_keywords(&settings);
        assert!(unknown.is_empty(), "{}: keywords that are not checked: {unknown:?}", tool.name);
        for (name, setting) in settings["properties"].as_object().unwrap() {
            assert!(setting["description"].is_string(), "{}: {name} is not described", tool.name);
            let is_secret = wardroom_tools::redaction::is_secret_name(name);
            let is_reference = |setting: &Value| setting.to_string().contains("\"format\":\"credential\"");
            assert!(!is_secret || is_reference(setting), "{}: {name} is not by reference", tool.name);
        }
    }
}
