//! The default policy in 60 situations, and the four-eyes table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use wardroom_domain::{AccessRole, PolicyAnswer, Principal, Timestamp};

use crate::request::{ActionRequest, Actor, ActorKind, ApprovalRequest, Context, Target};
use crate::situation::{parse_situations, test_situations};
use crate::{Config, Policy};

/// The situations that docs/policy.md refers to; `wardroom policy test` reads the same format.
const SITUATIONS: &str = include_str!("../../tests/situations.yaml");

#[test]
fn the_default_policy_answers_sixty_situations_as_written() {
    let policy = Policy::builtin().unwrap();
    let situations = parse_situations(SITUATIONS).unwrap();
    assert!(situations.len() >= 60, "{}", situations.len());
    assert!(situations.iter().all(|situation| situation.expect.is_some()));
    let report = test_situations(&policy, &Config::default(), &situations);
    let mut table = String::new();
    for outcome in &report.outcomes {
        let decision = &outcome.decision;
        let (name, rules) = (&outcome.name, decision.rules.join(" "));
        writeln!(table, "{:7} {name:58} {rules}", decision.answer.as_str()).unwrap();
        assert!(outcome.ok, "{outcome:?}");
    }
    insta::assert_snapshot!(table);
    // Every rule decides in at least one of them.
    let decided: BTreeSet<&String> = report.outcomes.iter().flat_map(|outcome| &outcome.decision.rules).collect();
    let idle: Vec<&str> = policy.rule_ids().filter(|id| !decided.contains(&(*id).to_owned())).collect();
    assert!(idle.is_empty(), "no situation for {idle:?}");
}

/// Bar 6h: five roles, four risks, three channels. The columns are who approves: the proposer, who asked for it,
/// another person first, the same person again, and another person second.
#[test]
fn four_eyes() {
    let policy = Policy::builtin().unwrap();
    let roles = [
        ("service", ActorKind::Service, AccessRole::Admin),
        ("sender", ActorKind::Person, AccessRole::Sender),
        ("viewer", ActorKind::Person, AccessRole::Viewer),
        ("responder", ActorKind::Person, AccessRole::Responder),
        ("admin", ActorKind::Person, AccessRole::Admin),
    ];
    let name = |text: &str| Principal::new(text).unwrap();
    let mut table = format!("{:10}{:10}{:6}{:9}", "role", "risk", "by", "needs");
    table.push_str("proposer requester first again second\n");
    for (role, kind, access) in roles {
        for risk in ["low", "medium", "high", "critical"] {
            for channel in ["http", "cli", "page"] {
                let may = |approver: &str, proposer: &str, requester: Option<&str>, approved_by: &[&str]| {
                    let request = ApprovalRequest {
                        approver: Actor { principal: name(approver), kind, role: Some(access) },
                        proposer: name(proposer),
                        requester: requester.map(name),
                        approved_by: approved_by.iter().map(|text| name(text)).collect(),
                        risk: risk.into(),
                        channel: channel.into(),
                        target: Target::default(),
                    };
                    policy.decide_approval(&request).answer
                };
                let answers = [
                    may("alice", "alice", None, &[]),
                    may("alice", "wardroom", Some("alice"), &[]),
                    may("alice", "wardroom", Some("bob"), &[]),
                    may("alice", "wardroom", None, &["alice"]),
                    may("alice", "wardroom", None, &["bob"]),
                ];
                assert!(answers[0] == PolicyAnswer::Deny && answers[1] == PolicyAnswer::Deny, "{role} {risk}");
                assert!(answers[3] == PolicyAnswer::Deny, "{role} {risk}: one person counts once");
                assert!(kind == ActorKind::Person || answers == [PolicyAnswer::Deny; 5], "a service never approves");
                let context = Context { reversible: true, ..Context::new(risk, Timestamp::default()) };
                let needs = policy.decide(&request(Actor::wardroom(), context)).answer;
                let [proposer, requester, first, again, second] =
                    answers.map(|answer| if answer == PolicyAnswer::Allow { "yes" } else { "-" });
                let needs = needs.approvals().map_or_else(|| "-".to_owned(), |count| count.to_string());
                writeln!(
                    table,
                    "{role:10}{risk:10}{channel:6}{needs:9}{proposer:9}{requester:10}{first:6}{again:6}{second}"
                )
                .unwrap();
            }
        }
    }
    insta::assert_snapshot!(table);
}

fn request(principal: Actor, context: Context) -> ActionRequest {
    let (tool, operation) = ("process".to_owned(), "restart".to_owned());
    ActionRequest { principal, tool, operation, target: Target::default(), context }
}

#[test]
fn an_unknown_risk_is_judged_as_critical() {
    let policy = Policy::builtin().unwrap();
    for risk in ["", "LOW", "medium ", "harmless"] {
        let found = policy.decide(&request(Actor::wardroom(), Context::new(risk, Timestamp::default())));
        assert_eq!(found.answer, PolicyAnswer::AskTwo, "{risk:?}: {found:?}");
    }
}

#[test]
fn what_no_rule_permits_is_denied() {
    let policy = Policy::parse("empty.cedar", "").unwrap();
    let found = policy.decide(&request(Actor::wardroom(), Context::new("none", Timestamp::default())));
    assert_eq!(
        (found.answer, found.rules.as_slice()),
        (PolicyAnswer::Deny, &["wardroom:not-permitted".to_owned()][..])
    );
}

#[test]
fn a_rule_that_fails_denies() {
    // The sum overflows when it is evaluated; Cedar alone would leave out the rule and permit.
    let text = r#"
@id("all") permit (principal, action in Action::"act", resource);
@id("overflow") forbid (principal, action in Action::"act", resource)
when { context.successes + 9223372036854775807 > 0 };
"#;
    let policy = Policy::parse("p.cedar", text).unwrap();
    let context = Context { successes: 1, ..Context::new("none", Timestamp::default()) };
    let found = policy.decide(&request(Actor::wardroom(), context));
    assert_eq!((found.answer, found.rules[0].as_str()), (PolicyAnswer::Deny, "wardroom:rule-failed"), "{found:?}");
}

#[test]
fn a_file_cannot_permit_what_wardroom_itself_refuses() {
    let policy = Policy::parse("p.cedar", r#"@id("all") permit (principal, action, resource);"#).unwrap();
    let name = |text: &str| Principal::new(text).unwrap();
    let approval = |kind, proposer: &str, approved_by: Vec<Principal>| {
        policy.decide_approval(&ApprovalRequest {
            approver: Actor { principal: name("alice"), kind, role: Some(AccessRole::Admin) },
            proposer: name(proposer),
            requester: None,
            approved_by,
            risk: "low".into(),
            channel: "cli".into(),
            target: Target::default(),
        })
    };
    assert_eq!(approval(ActorKind::Person, "wardroom", vec![]).answer, PolicyAnswer::Allow);
    for refused in [
        approval(ActorKind::Service, "wardroom", vec![]),
        approval(ActorKind::Person, "alice", vec![]),
        approval(ActorKind::Person, "wardroom", vec![name("alice")]),
    ] {
        assert_eq!(refused.answer, PolicyAnswer::Deny);
        assert!(refused.rules[0].starts_with("wardroom:"), "{refused:?}");
    }
}
