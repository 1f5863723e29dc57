//! The beacon node's view of the validators, by the standard beacon API.

use serde_json::{Value, json};
use wardroom_respond::ToolError;

use super::slots::Duties;
use crate::rest::Rest;

/// The beacon node.
pub(super) struct Beacon {
    pub(super) rest: Rest,
    /// Indices of the validators, in decimal.
    pub(super) validators: Vec<String>,
}

/// Lengths of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) slot_seconds: u64,
    pub(super) epoch_slots: u64,
}

impl Beacon {
    pub(super) fn chain(&self) -> Result<Chain, ToolError> {
        let spec = self.rest.get("/eth/v1/config/spec")?;
        let number = |name: &str| {
            let found = number(&spec["data"][name]).filter(|number| *number > 0);
            found.ok_or_else(|| ToolError::Unavailable(format!("the beacon node's specification has no {name}")))
        };
        Ok(Chain { slot_seconds: number("SECONDS_PER_SLOT")?, epoch_slots: number("SLOTS_PER_EPOCH")? })
    }

    /// Returns the slot of the head, if the node follows the chain: then it is the current one, or the one before.
    ///
    /// # Errors
    /// Returns an error if the node does not follow the chain: what it says about validators proves nothing then.
    pub(super) fn slot(&self) -> Result<u64, ToolError> {
        let status = &self.rest.get("/eth/v1/node/syncing")?["data"];
        for (field, reason) in [
            ("is_syncing", "is behind the chain"),
            ("is_optimistic", "does not verify the chain's payloads at the moment"),
            ("el_offline", "has no execution client"),
        ] {
            if status[field] != false {
                return Err(ToolError::Invalid(format!(
                    "the beacon node {reason}; its view of the validators proves nothing"
                )));
            }
        }
        number(&status["head_slot"]).ok_or_else(|| ToolError::Unavailable("the beacon node has no head".to_owned()))
    }

    /// Returns the duties of the validators in an epoch.
    pub(super) fn duties(&self, epoch: u64) -> Result<Duties, ToolError> {
        let mut duties = Duties::default();
        let proposers = self.rest.get(&format!("/eth/v1/validator/duties/proposer/{epoch}"))?;
        for duty in proposers["data"].as_array().into_iter().flatten() {
            let is_ours = duty["validator_index"].as_str().is_some_and(|index| self.is_ours(index));
            if let Some(slot) = number(&duty["slot"]).filter(|_| is_ours) {
                duties.proposals.push(slot);
            }
        }
        let attesters = self.post(&format!("/eth/v1/validator/duties/attester/{epoch}"))?;
        for duty in attesters["data"].as_array().into_iter().flatten() {
            if let Some(slot) = number(&duty["slot"]) {
                *duties.attestations.entry(slot).or_default() += 1;
            }
        }
        Ok(duties)
    }

    /// Returns the validators that the node has seen in an epoch.
    pub(super) fn live(&self, epoch: u64) -> Result<Vec<String>, ToolError> {
        let answer = self.post(&format!("/eth/v1/validator/liveness/{epoch}"))?;
        let rows = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Each validator must have an answer: silence about one is no proof.
        for index in &self.validators {
            if !rows.iter().any(|row| row["index"].as_str() == Some(index)) {
                return Err(ToolError::Unavailable(format!("the beacon node says nothing about validator {index}")));
            }
        }
        let live = rows.iter().filter(|row| row["is_live"] != false);
        Ok(live.filter_map(|row| row["index"].as_str().map(str::to_owned)).collect())
    }

    fn is_ours(&self, index: &str) -> bool {
        self.validators.iter().any(|ours| ours == index)
    }

    fn post(&self, path: &str) -> Result<Value, ToolError> {
        let answer = self.rest.send("POST", path, Some(&json!(self.validators)))?;
        if answer.status == 200 { Ok(answer.body) } else { Err(self.rest.refused(&answer)) }
    }
}

/// Numbers are texts in the beacon API.
fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}
