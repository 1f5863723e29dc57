//! The policy: what may be done to which target, and who has to approve it.
//!
//! ```text
//! ActionRequest ──► Policy::decide ──► deny │ ask-two │ ask-one │ allow   + ids of the rules that decided
//!                       │
//!                       └ asks Cedar up to three times, the freest way first:
//!                         act-without-approval, act-with-one-approval, act-with-two-approvals
//! ```
//!
//! Rules are Cedar policies in one readable file ([`Policy::builtin`]), checked against a schema when they are loaded;
//! problems name file, line, rule and remedy. What no file may change is in code: a service never approves, the
//! proposer and the requester never approve, one person counts once, and an error in a rule denies.
//!
//! The server asks between "proposed" and "awaiting approval"; the executor asks again immediately before the action,
//! from its own file and with what it has measured itself.
//!
//! - [`Config`]: the section `policy` of the configuration: file, time windows, change freezes, declared targets.
//! - [`Situation`]: a request as people write it, for `wardroom policy test` and `explain`; [`lint`] finds rules that
//!   have no effect.
//! - [`autonomy`]: when an action has earned to run without approval, and when it loses that.
//! - [`escalation`]: who is asked next if no person answers.
//!
//! Pure: no clock, no files, no network; the time is an argument. Only this crate names Cedar.

#![forbid(unsafe_code)]

pub mod autonomy;
mod calendar;
mod cedar_request;
mod config;
mod decide;
mod error;
pub mod escalation;
mod lint;
mod request;
mod rules;
mod situation;

pub use calendar::{Freeze, TimeWindow, Weekday};
pub use config::{Config, TargetRule};
pub use error::{PolicyError, Problem};
pub use lint::{Finding, lint};
pub use request::{ActionRequest, Actor, ActorKind, ApprovalRequest, Autonomy, Context, Criticality, Target};
pub use rules::{DEFAULT_POLICY, Policy, SCHEMA};
pub use situation::{Outcome, Situation, SituationReport, parse_situations, test_situations};
