//! Stop of all actions: `wardroom stop-all` and `wardroom resume`.
//!
//! Problem: when Wardroom does harm, a person must be able to stop it at once, also while the server hangs. Model: the
//! stop is a line of the ledger, and is looked at immediately before each line that precedes an effect, under the same
//! lock; a file in the executor's folder requests a stop without a connection. Guarantee: once a stop is recorded, no
//! call begins. Stopping needs no proof; resuming needs an approver's, for this very stop, since a server that is taken
//! over would resume.

use std::io::ErrorKind;
use std::sync::Arc;

use serde::Deserialize;
use wardroom_domain::executor::{RefusalCode, Response, Stopped};
use wardroom_domain::{Principal, TenantId, mutant};
use wardroom_process::clock;

use super::{Service, refuse_ledger_error};
use crate::approval::{self, Claim};
use crate::ledger::{Entry, FORMAT_VERSION, Ledger};
use crate::protocol::STOP_FILE;
use crate::refusal::Refusal;

/// Maximum length of a reason, in characters.
const MAX_REASON_CHARS: usize = 1000;

/// Content of the file that requests a stop.
#[derive(Debug, Deserialize)]
struct StopRequest {
    by: Principal,
    #[serde(default)]
    reason: String,
}

impl Service {
    /// Stops all actions. What is stopped already stays so.
    pub(super) fn stop_all(&self, by: Principal, reason: String) -> Result<Response, Refusal> {
        self.record_stop(&mut self.ledger(), by, reason)?;
        self.stop_state()
    }

    /// Returns the stop in force.
    pub(super) fn stop_state(&self) -> Result<Response, Refusal> {
        let mut ledger = self.ledger();
        self.take_stop_file(&mut ledger)?;
        Ok(Response::StopState { stopped: ledger.stopped().cloned() })
    }

    /// Ends the stop in force, if an approver of the tenant `main` proves that they want that.
    pub(super) fn resume(self: &Arc<Self>, proof: &str) -> Result<Response, Refusal> {
        let config = self.config_for(proof)?;
        let mut ledger = self.ledger();
        self.take_stop_file(&mut ledger)?;
        let Some(stopped) = ledger.stopped().cloned() else { return Ok(Response::StopState { stopped: None }) };
        let claim = Claim::resume(TenantId::main(), &stopped.id);
        let principal = approval::verify(&config, &claim, proof, clock::now())?.principal;
        tracing::warn!(%principal, stop = stopped.id, "actions are possible again");
        let entry = Entry::Resumed { version: FORMAT_VERSION, at: clock::now(), stop: stopped.id, principal };
        ledger.append(entry).map_err(refuse_ledger_error)?;
        drop(ledger);
        self.recover_interrupted();
        Ok(Response::StopState { stopped: None })
    }

    /// Refuses while all actions are stopped.
    pub(super) fn check_stop(&self) -> Result<(), Refusal> {
        self.refuse_if_stopped(&mut self.ledger())
    }

    /// Writes the line that precedes an effect, unless all actions are stopped.
    pub(super) fn append_effect(&self, entry: Entry) -> Result<(), Refusal> {
        let mut ledger = self.ledger();
        self.refuse_if_stopped(&mut ledger)?;
        ledger.append(entry).map_err(refuse_ledger_error)
    }

    fn refuse_if_stopped(&self, ledger: &mut Ledger) -> Result<(), Refusal> {
        self.take_stop_file(ledger)?;
        match ledger.stopped().filter(|_| !mutant::is_enabled("ignore-stop")) {
            Some(Stopped { by, at, reason, .. }) => {
                let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                let detail = format!("{by} has stopped all actions at {at}{reason}; `wardroom resume` ends that");
                Err((RefusalCode::Stopped, detail))
            }
            None => Ok(()),
        }
    }

    fn record_stop(&self, ledger: &mut Ledger, by: Principal, reason: String) -> Result<(), Refusal> {
        if ledger.stopped().is_some() {
            return Ok(());
        }
        let at = clock::now();
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        tracing::warn!(%by, reason, "all actions are stopped");
        let stopped = Stopped { id: format!("{:x}", at.nanos()), by, reason, at };
        ledger.append(Entry::Stopped { version: FORMAT_VERSION, stopped }).map_err(refuse_ledger_error)
    }

    /// Records a stop that the file requests, and removes the file. A file that cannot be read stops, too.
    fn take_stop_file(&self, ledger: &mut Ledger) -> Result<(), Refusal> {
        let path = self.folder.join(STOP_FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            text => text.unwrap_or_default(),
        };
        let request = serde_json::from_str(&text).unwrap_or_else(|_| StopRequest {
            by: Principal::wardroom(),
            reason: format!("the file {STOP_FILE} is in the executor's folder"),
        });
        self.record_stop(ledger, request.by, request.reason)?;
        let removed = std::fs::remove_file(&path);
        removed.map_err(|error| (RefusalCode::Stopped, format!("{} cannot be removed: {error}", path.display())))
    }
}
