//! Situations for lint, combined from the words and numbers in a policy's text.

use std::collections::BTreeSet;

use cedar_policy::Schema;
use wardroom_domain::{AccessRole, Entity, EntityKind, PolicyAnswer, Principal, Timestamp};

use crate::cedar_request::{CedarRequest, RISKS};
use crate::request::{ActionRequest, Actor, ActorKind, ApprovalRequest, Autonomy, Context, Criticality, Target};
use crate::rules::Policy;

/// Multiplier and increment of the generator of Numerical Recipes.
const MULTIPLIER: u64 = 1_664_525;
/// See [`MULTIPLIER`].
const INCREMENT: u64 = 1_013_904_223;

/// A situation in Cedar's terms.
pub(super) enum Combined {
    /// An action.
    Action(CedarRequest),
    /// An approval.
    Approval(CedarRequest),
    /// Cannot be represented.
    Invalid,
}

/// A sequence of situations, the same for the same text.
pub(super) struct CombinedSituations {
    state: u64,
    words: Vec<String>,
    numbers: Vec<u32>,
}

impl CombinedSituations {
    pub(super) fn new(text: &str) -> Self {
        let code: String =
            text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        let words = code.split('"').skip(1).step_by(2).filter(|word| !word.contains(' '));
        let mut words: BTreeSet<String> = words.map(str::to_owned).collect();
        words.insert(String::new());
        let digits = code.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u32>().ok());
        let mut numbers: BTreeSet<u32> = digits.flat_map(|n| [n.saturating_sub(1), n, n.saturating_add(1)]).collect();
        numbers.insert(0);
        Self { state: 1, words: words.into_iter().collect(), numbers: numbers.into_iter().collect() }
    }

    pub(super) fn next_request(&mut self, schema: &Schema) -> Combined {
        if self.below(4) == 0 {
            let request = CedarRequest::of_approval(&self.approval(), schema);
            return request.map_or(Combined::Invalid, Combined::Approval);
        }
        CedarRequest::of_action(&self.action(), schema).map_or(Combined::Invalid, Combined::Action)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        usize::try_from((self.state >> 16) % (bound.max(1) as u64)).unwrap_or_default()
    }

    fn one_of<T: Clone>(&mut self, items: &[T], fallback: T) -> T {
        let index = self.below(items.len());
        items.get(index).cloned().unwrap_or(fallback)
    }

    /// Returns a word of the text, or one that it does not have.
    fn word(&mut self) -> String {
        let index = self.below(self.words.len() + 1);
        self.words.get(index).cloned().unwrap_or_else(|| "other".to_owned())
    }

    fn number(&mut self) -> u32 {
        let index = self.below(self.numbers.len());
        self.numbers.get(index).copied().unwrap_or_default()
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn actor(&mut self) -> Actor {
        let kind = if self.flag() { ActorKind::Person } else { ActorKind::Service };
        let role = self.one_of(&AccessRole::ALL, AccessRole::Viewer);
        let name = self.word();
        let principal = Principal::new(name).unwrap_or_else(|_| Principal::anonymous());
        Actor { principal, kind, role: Some(role) }
    }

    fn target(&mut self) -> Target {
        let kind = self.one_of(&EntityKind::ALL, EntityKind::Service);
        Target {
            entity: Entity {
                kind,
                cluster: self.word(),
                environment: self.word(),
                namespace: self.word(),
                name: self.word(),
            },
            criticality: self.one_of(&Criticality::ALL, Criticality::Normal),
            owner: self.word(),
            is_wardroom: self.flag(),
            name: self.word(),
        }
    }

    fn action(&mut self) -> ActionRequest {
        let risk = self.one_of(&RISKS, "low");
        let mut context = Context {
            reversible: self.flag(),
            cause: self.word(),
            successes: self.number(),
            failures: self.number(),
            autonomy: self.one_of(&Autonomy::ALL, Autonomy::Ask),
            actions_last_hour: self.number(),
            break_glass: self.flag(),
            ..Context::new(risk, Timestamp::default())
        };
        context.blast_radius = self.flag().then(|| u64::from(self.number()));
        context.confidence_percent = self.flag().then(|| self.number());
        context.evidence_age_seconds = self.flag().then(|| self.number());
        if self.flag() {
            context.windows.insert(self.word());
        }
        if self.flag() {
            context.freezes.insert(self.word());
        }
        let (tool, operation) = (self.word(), self.word());
        ActionRequest { principal: self.actor(), tool, operation, target: self.target(), context }
    }

    fn approval(&mut self) -> ApprovalRequest {
        ApprovalRequest {
            approver: self.actor(),
            proposer: Principal::wardroom(),
            requester: None,
            approved_by: vec![Principal::anonymous(); self.below(3)],
            risk: self.one_of(&RISKS, "low").to_owned(),
            channel: self.word(),
            target: self.target(),
        }
    }
}

/// Whether changes of Wardroom's own host, store and bus need two people, at every risk and level of autonomy.
pub(super) fn wardroom_needs_two(policy: &Policy) -> bool {
    let [_, risks @ ..] = RISKS;
    risks.into_iter().all(|risk| {
        let context = Context {
            reversible: true,
            blast_radius: Some(1),
            confidence_percent: Some(100),
            autonomy: Autonomy::Automatic,
            ..Context::new(risk, Timestamp::default())
        };
        let target = Target { is_wardroom: true, ..Target::default() };
        let (tool, operation) = ("process".to_owned(), "restart".to_owned());
        let request = ActionRequest { principal: Actor::wardroom(), tool, operation, target, context };
        policy.decide(&request).answer <= PolicyAnswer::AskTwo
    })
}
