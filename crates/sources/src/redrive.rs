//! Records that were refused once, judged again.
//!
//! Problem: a limit was too low, and now it is not; the records that it kept out are wanted. Model: the request is read again, those of
//! its records that were taken then are left out as taken, and the others go through the same gate as any request, with the limits
//! of today and the time of its arrival. What passes stands in an envelope of its own, for the bus.

use wardroom_domain::error::Failure;
use wardroom_domain::{Envelope, Refusal, RefusalReason};
use wardroom_edge::Problem;

use crate::admit::admit;
use crate::intake::{problem_of, resolve};
use crate::registry;
use crate::source::joined;
use crate::{Decoded, Intake, RequestHead};

/// The header under which the refused records of a request go to the bus.
///
/// # Errors
/// None of them passes, or the body cannot be read: in words for whoever asked.
pub fn redrive(intake: &Intake, envelope: &Envelope, body: &[u8]) -> Result<Envelope, Problem> {
    let unknown = || Failure::Fatal(format!("no source is called {:?} in this build", envelope.protocol));
    let source = registry::find(&envelope.protocol).ok_or_else(unknown).map_err(problem_of)?;
    let mut decoded: Decoded = source.decode(&RequestHead::of(envelope), body, &intake.budget).map_err(problem_of)?;
    let taken = taken(&envelope.refused);
    decoded.leave_out(&taken);
    decoded.metrics.retain_exemplars(|_, _| taken.is_empty());
    admit(&mut decoded, &intake.config, envelope.received_at);
    resolve(&mut decoded, &envelope.tenant, intake);
    if decoded.is_empty() {
        let first = decoded.refused.first().map(|refusal| (refusal.reason.as_str(), refusal.detail.clone()));
        let (reason, detail) = first.unwrap_or(("nothing_left", "nothing of it was refused".to_owned()));
        return Err(Problem::bad_request(reason, format!("none of its records passes: {detail}")));
    }
    let events = decoded.has_events();
    Ok(Envelope { refused: taken.into_iter().chain(decoded.refused).collect(), events, ..envelope.clone() })
}

/// The stretches between those that were refused; nothing if the whole request was.
fn taken(refused: &[Refusal]) -> Vec<Refusal> {
    let (mut taken, mut next) = (Vec::new(), Some(0));
    let mut note = |first: u32, last: u32| {
        taken.push(Refusal { first, last, reason: RefusalReason::Taken, detail: String::new() });
    };
    // Stretches that were taken before stay so.
    let (before, open): (Vec<_>, Vec<_>) =
        refused.iter().cloned().partition(|refusal| refusal.reason == RefusalReason::Taken);
    for (first, last) in joined(&open) {
        if let Some(from) = next.filter(|from| *from < first) {
            note(from, first - 1);
        }
        next = last.checked_add(1);
    }
    if let Some(from) = next.filter(|_| !open.is_empty()) {
        note(from, u32::MAX);
    }
    taken.extend(before);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_refusals_was_taken() {
        let refusal = |first, last, reason| Refusal { first, last, reason, detail: String::new() };
        let spans = |refused: &[Refusal]| taken(refused).iter().map(|run| (run.first, run.last)).collect::<Vec<_>>();
        let (old, limit) = (RefusalReason::TooOld, RefusalReason::SeriesLimit);
        assert_eq!(spans(&[]), [], "a request that could not be read");
        assert_eq!(spans(&[refusal(0, 0, old)]), [(1, u32::MAX)]);
        assert_eq!(spans(&[refusal(7, 9, limit), refusal(3, 4, old)]), [(0, 2), (5, 6), (10, u32::MAX)]);
        assert_eq!(spans(&[refusal(3, u32::MAX, old)]), [(0, 2)]);
    }
}
