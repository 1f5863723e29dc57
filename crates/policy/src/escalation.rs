//! Escalation: if no person answers, the next one of the route is asked; then the plan expires, and nothing is done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::Timestamp;
use wardroom_domain::config_check::{ConfigProblems, MAX_MINUTES};

/// One step of the route: who is asked, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Step {
    /// Time after the proposal, in minutes. Default 0. Since 0.2.
    pub after_minutes: u64,
    /// Access role whose holders are asked. Default `responder` if there is no list either. Since 0.2.
    pub role: Option<String>,
    /// Name of the on-call list that is asked. Default: none. Since 0.2.
    pub on_call: Option<String>,
    /// Name of the channel that the message goes through. Default: every channel that is configured. Since 0.2.
    pub channel: Option<String>,
}

impl Default for Step {
    fn default() -> Self {
        Self { after_minutes: 0, role: Some("responder".into()), on_call: None, channel: None }
    }
}

impl Step {
    /// Time after the proposal, in ms.
    fn wait_ms(&self) -> i64 {
        i64::try_from(self.after_minutes.saturating_mul(60_000)).unwrap_or(i64::MAX)
    }

    /// Returns who is asked, for messages: `role responder`, `on-call list platform through slack`.
    pub fn describe(&self) -> String {
        let mut recipients = Vec::new();
        recipients.extend(self.role.as_ref().map(|role| format!("role {role}")));
        recipients.extend(self.on_call.as_ref().map(|list| format!("on-call list {list}")));
        let through = self.channel.as_ref().map(|channel| format!(" through {channel}")).unwrap_or_default();
        format!("{}{through}", recipients.join(" and "))
    }
}

/// Adds what is wrong with a route.
pub(crate) fn check(route: &[Step], problems: &mut ConfigProblems) {
    let mut before = 0;
    for (index, step) in route.iter().enumerate() {
        let field = format!("policy.escalation[{index}]");
        problems.range(&format!("{field}.after-minutes"), step.after_minutes, 0..=MAX_MINUTES);
        let detail = "it is before the step above; order the steps by time";
        problems.require(step.after_minutes >= before, &format!("{field}.after-minutes"), detail);
        before = before.max(step.after_minutes);
        let has_recipient = step.role.is_some() || step.on_call.is_some();
        problems.require(has_recipient, &format!("{field}.role"), "no recipient; write `role` or `on-call`");
    }
}

/// Returns the steps of a route that are due and not done. `done` is the number of steps done since the proposal.
pub fn due(route: &[Step], proposed_at: Timestamp, now: Timestamp, done: usize) -> &[Step] {
    let waited_ms = now.millis().saturating_sub(proposed_at.millis());
    let due = route.iter().take_while(|step| waited_ms >= step.wait_ms()).count();
    route.get(done..due).unwrap_or_default()
}

/// Returns when the next step of a route is due; `None` if all are done. `done` is the number of steps done since the
/// proposal.
pub fn next_due_at(route: &[Step], proposed_at: Timestamp, done: usize) -> Option<Timestamp> {
    let wait_ms = route.get(..=done)?.iter().map(Step::wait_ms).max()?;
    Some(Timestamp::from_millis(proposed_at.millis().saturating_add(wait_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Vec<Step> {
        let step = |after_minutes, role: Option<&str>, on_call: Option<&str>| Step {
            after_minutes,
            role: role.map(str::to_owned),
            on_call: on_call.map(str::to_owned),
            channel: None,
        };
        vec![
            step(0, Some("responder"), None),
            step(10, None, Some("platform")),
            Step { channel: Some("phone".into()), ..step(20, Some("admin"), None) },
        ]
    }

    #[test]
    fn steps_follow_one_another_until_the_route_ends() {
        let route = route();
        let proposed_at = Timestamp::from_millis(1_795_255_200_000);
        let due_at = |minutes: i64, done: usize| {
            let now = Timestamp::from_millis(proposed_at.millis() + minutes * 60_000);
            due(&route, proposed_at, now, done).iter().map(Step::describe).collect::<Vec<_>>()
        };
        assert_eq!(due_at(0, 0), ["role responder"]);
        assert!(due_at(9, 1).is_empty());
        assert_eq!(due_at(10, 1), ["on-call list platform"]);
        assert_eq!(due_at(25, 1), ["on-call list platform", "role admin through phone"], "after a time without server");
        assert!(due_at(1000, 3).is_empty() && due_at(1000, 7).is_empty());
        assert!(due_at(-5, 0).is_empty(), "a clock that was set back");
    }

    /// Nothing is asked in vain: the next step is due exactly when there is one.
    #[test]
    fn the_next_step_is_due_when_it_says() {
        let (route, proposed_at) = (route(), Timestamp::from_nanos(1_795_255_200_000_999_999));
        for done in 0..route.len() {
            let at = next_due_at(&route, proposed_at, done).unwrap();
            assert_eq!(due(&route, proposed_at, at, done).len(), 1, "{done}");
            let before = Timestamp::from_nanos(at.nanos() - 1);
            assert!(due(&route, proposed_at, before, done).is_empty(), "{done}");
        }
        assert_eq!(next_due_at(&route, proposed_at, route.len()), None);
        assert_eq!(next_due_at(&route, proposed_at, usize::MAX), None);
        assert_eq!(next_due_at(&[], proposed_at, 0), None);
    }

    #[test]
    fn a_route_in_wrong_order_or_without_recipient_is_refused() {
        let mut route = route();
        route.swap(0, 1);
        route[2].role = None;
        let mut problems = ConfigProblems::default();
        check(&route, &mut problems);
        insta::assert_snapshot!(problems.into_lines().join("\n"));
    }
}
