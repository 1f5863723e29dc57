//! Redrive of refused records.
//!
//! Problem: a limit was too low and has been raised; the records it refused should now be accepted. Model: the request
//! is decoded again, the records accepted the first time are marked as accepted, and the others pass through the same
//! checks as a new request, with the current limits and the original time of arrival. The accepted ones get a new
//! envelope for the bus.

use wardroom_domain::{Envelope, Refusal, RefusalReason};
use wardroom_edge::Problem;

use crate::decode::refusals::merged_ranges;
use crate::intake::endpoint::{Intake, admit_events, problem_of, resolve_series};
use crate::intake::limits::apply_limits;
use crate::registry::decode_stored;

/// Returns the envelope with which the refused records of a request are appended to the bus again.
///
/// # Errors
/// Returns a problem if all records are refused again or the body cannot be decoded.
pub fn redrive(intake: &Intake, envelope: &Envelope, body: &[u8]) -> Result<Envelope, Problem> {
    let mut decoded = decode_stored(envelope, body, &intake.budget).map_err(problem_of)?;
    let accepted = accepted_ranges(&envelope.refused);
    decoded.remove_refused(&accepted);
    decoded.metrics.retain_exemplars(|_, _| accepted.is_empty());
    apply_limits(&mut decoded, &intake.config, envelope.received_at);
    resolve_series(&mut decoded, &envelope.tenant, intake);
    admit_events(&mut decoded, &envelope.tenant, intake, envelope.received_at);
    if decoded.is_empty() {
        let first = decoded.refused.first().map(|refusal| (refusal.reason.as_str(), refusal.detail.clone()));
        let (reason, detail) = first.unwrap_or(("nothing_left", "no record of the request was refused".to_owned()));
        return Err(Problem::bad_request(reason, format!("all records are refused again: {detail}")));
    }
    let has_events = decoded.has_events();
    Ok(Envelope { refused: accepted.into_iter().chain(decoded.refused).collect(), has_events, ..envelope.clone() })
}

/// Returns the ranges between the refused ones, marked as accepted; none if the whole request was refused.
fn accepted_ranges(refused: &[Refusal]) -> Vec<Refusal> {
    let (mut accepted, mut next) = (Vec::new(), Some(0));
    let mut push_range = |first: u32, last: u32| {
        accepted.push(Refusal { first, last, reason: RefusalReason::AlreadyAccepted, detail: String::new() });
    };
    // Ranges accepted in an earlier redrive stay accepted.
    let (accepted_before, refused_then): (Vec<_>, Vec<_>) =
        refused.iter().cloned().partition(|refusal| refusal.reason == RefusalReason::AlreadyAccepted);
    for (first, last) in merged_ranges(&refused_then) {
        if let Some(from) = next.filter(|from| *from < first) {
            push_range(from, first - 1);
        }
        next = last.checked_add(1);
    }
    if let Some(from) = next.filter(|_| !refused_then.is_empty()) {
        push_range(from, u32::MAX);
    }
    accepted.extend(accepted_before);
    accepted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_between_refusals_were_accepted() {
        let refusal = |first, last, reason| Refusal { first, last, reason, detail: String::new() };
        let spans =
            |refused: &[Refusal]| accepted_ranges(refused).iter().map(|run| (run.first, run.last)).collect::<Vec<_>>();
        let (old, limit) = (RefusalReason::TooOld, RefusalReason::SeriesLimit);
        assert_eq!(spans(&[]), [], "a request that could not be decoded");
        assert_eq!(spans(&[refusal(0, 0, old)]), [(1, u32::MAX)]);
        assert_eq!(spans(&[refusal(7, 9, limit), refusal(3, 4, old)]), [(0, 2), (5, 6), (10, u32::MAX)]);
        assert_eq!(spans(&[refusal(3, u32::MAX, old)]), [(0, 2)]);
    }
}
