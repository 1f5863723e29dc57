//! Problems of policy files name line, rule and remedy.

use super::*;

fn problems(text: &str) -> String {
    Policy::parse("site.cedar", text).unwrap_err().to_string()
}

#[test]
fn the_built_in_policy_is_valid_and_every_rule_has_line_and_reason() {
    let policy = Policy::builtin().unwrap();
    assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
    let lines: Vec<&str> = DEFAULT_POLICY.lines().collect();
    for (id, rule) in &policy.rules {
        assert_eq!(lines[rule.line - 1], format!("@id(\"{id}\")"), "{id}");
        assert!(!rule.reason.is_empty(), "{id}");
    }
}

#[test]
fn every_problem_names_line_and_rule() {
    let text = r#"// two rules that do not fit the schema
@id("spelling")
permit (principal, action in Action::"act", resource)
when { context.risks == "low" };

@id("action")
permit (principal, action == Action::"delete", resource);

@id("type")
permit (principal, action in Action::"act", resource)
when { context.risk > 3 };

@id("optional")
permit (principal, action in Action::"act", resource)
when { context.blast_radius < 3 };
"#;
    insta::assert_snapshot!(problems(text));
}

#[test]
fn syntax_errors_ids_and_templates() {
    let texts = [
        "permit (principal, action, resource);",
        "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
        "@id(\"wardroom:own\") permit (principal, action, resource);",
        "@id(\"a b\") permit (principal, action, resource);",
        "@id(\"a\")\npermit (principal, action, resource)\nwhen { context.risk = \"low\" };",
        "@id(\"a\") permit (principal == ?principal, action, resource);",
    ];
    insta::assert_snapshot!(texts.map(problems).join("\n"));
}
