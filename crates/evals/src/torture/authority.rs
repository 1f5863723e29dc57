//! What the executor does by itself, as a server that is taken over would ask it: bars 3e (plans and proofs) and 6h
//! (the policy). The requests go to its socket; effects are counted by the target.

mod asked_executor;
pub(super) mod bound_proofs;
pub(super) mod policy_in_force;
