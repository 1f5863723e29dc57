//! What people note about an incident: seen, whose it is, comments, part of another one, no messages for a while.

use std::time::Duration;

use serde_json::{Value, json};
use wardroom_api::Decision;
use wardroom_domain::{Acknowledgement, Comment, Identity, Timestamp};
use wardroom_edge::Problem;
use wardroom_respond::Workflow;

use crate::problem_responses::conflict;

/// Maximum number of comments of an incident: they are kept with it.
const MAX_COMMENTS: usize = 500;

/// Action and content of the audit entry of a note.
pub(crate) type Noted = (&'static str, Value);

/// Notes a decision in the workflow; `None` if it is no note. `into` is id and key of the incident that another one is
/// merged into.
///
/// # Errors
/// Returns a problem if there are too many comments.
pub(crate) fn note(
    caller: &Identity,
    workflow: &mut Workflow,
    decision: &Decision,
    into: Option<&(String, String)>,
    now: Timestamp,
) -> Result<Option<Noted>, Problem> {
    let (by, incident) = (caller.principal.clone(), &mut workflow.incident);
    let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
    Ok(Some(match decision {
        Decision::Acknowledge => {
            if incident.acknowledged.is_none() {
                incident.record(now, format!("acknowledged by {by}"));
                incident.acknowledged = Some(Acknowledgement { by, at: now });
            }
            ("acknowledge", json!({}))
        }
        Decision::Assign { owner } => {
            let text = owner.as_ref().map_or_else(|| "no person".to_owned(), ToString::to_string);
            incident.record(now, format!("assigned to {text} by {by}"));
            incident.owner.clone_from(owner);
            ("assign", json!({ "owner": owner }))
        }
        Decision::Comment { text } => {
            if incident.comments.len() >= MAX_COMMENTS {
                let detail = format!("the incident has {MAX_COMMENTS} comments; write elsewhere and link it");
                return Err(conflict("too_many_comments", detail));
            }
            incident.comments.push(Comment { by, at: now, text: text.clone() });
            ("comment", json!({ "text": text }))
        }
        Decision::Merge { reason, .. } => {
            let Some((id, key)) = into else { return Ok(None) };
            incident.record(now, format!("merged into {id} by {by}{}", because(reason)));
            incident.merged_into = Some(key.clone());
            ("merge", json!({ "into": id, "reason": reason }))
        }
        Decision::Suppress { minutes: 0, reason } => {
            incident.record(now, format!("messages are wanted again, by {by}{}", because(reason)));
            incident.suppressed_until = None;
            ("suppress", json!({ "minutes": 0, "reason": reason }))
        }
        Decision::Suppress { minutes, reason } => {
            let until = now.plus(Duration::from_secs(u64::from(*minutes) * 60));
            incident.record(now, format!("no messages until {until}, by {by}{}", because(reason)));
            incident.suppressed_until = Some(until);
            ("suppress", json!({ "minutes": minutes, "until": until, "reason": reason }))
        }
        Decision::Approve { .. }
        | Decision::Reject { .. }
        | Decision::Verdict { .. }
        | Decision::Close { .. }
        | Decision::Reopen { .. } => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Incident, Principal, TenantId};

    use super::*;

    #[test]
    fn notes_are_kept_with_the_incident() {
        let caller = Identity {
            tenant: TenantId::main(),
            principal: Principal::new("ann").unwrap(),
            role: AccessRole::Responder,
        };
        let mut workflow = Workflow::new(Incident::default());
        let now = Timestamp::from_millis(60_000);
        let into = ("INC-3".to_owned(), "key3".to_owned());
        let mut apply =
            |decision: Decision| note(&caller, &mut workflow, &decision, Some(&into), now).unwrap().unwrap().0;
        let owner = Some(Principal::new("bob").unwrap());
        assert_eq!(apply(Decision::Acknowledge), "acknowledge");
        assert_eq!(apply(Decision::Acknowledge), "acknowledge");
        assert_eq!(apply(Decision::Assign { owner }), "assign");
        assert_eq!(apply(Decision::Comment { text: "the pool is full".into() }), "comment");
        assert_eq!(apply(Decision::Suppress { minutes: 2, reason: String::new() }), "suppress");
        assert_eq!(apply(Decision::Merge { into: 3, reason: "same cause".into() }), "merge");
        let incident = &workflow.incident;
        assert_eq!(incident.acknowledged.as_ref().map(|seen| seen.by.to_string()), Some("ann".to_owned()));
        assert_eq!(incident.owner.as_ref().map(ToString::to_string), Some("bob".to_owned()));
        assert_eq!(incident.comments.len(), 1);
        assert_eq!(incident.suppressed_until, Some(Timestamp::from_millis(180_000)));
        assert_eq!(incident.merged_into.as_deref(), Some("key3"));
        let texts: Vec<&str> = incident.history.iter().map(|change| change.text.as_str()).collect();
        assert_eq!(texts.len(), 4, "acknowledged once: {texts:?}");
        let reject = Decision::Reject { reason: String::new() };
        assert_eq!(note(&caller, &mut workflow, &reject, None, now).unwrap(), None);
        for _ in 1..MAX_COMMENTS {
            note(&caller, &mut workflow, &Decision::Comment { text: "x".into() }, None, now).unwrap();
        }
        let problem = note(&caller, &mut workflow, &Decision::Comment { text: "x".into() }, None, now).unwrap_err();
        assert_eq!(problem.code(), "too_many_comments");
    }
}
