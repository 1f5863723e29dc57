//! `restart_validator_client`: restarts a validator client of Ethereum without a second one ever running.
//!
//! Problem: two clients that sign with the same keys are slashed, which costs more than any outage; a restart that goes
//! wrong (a stop that is reported and did not happen, a second host that took over) makes two of them. Model: wait for
//! a slot without a proposal near, stop, prove the stop twice (the runner has no process of it, and for whole epochs
//! the chain shows no sign of the validators), and only then start. Guarantees: nothing is started without both proofs,
//! nor by a beacon node that does not follow the chain; whatever is unclear ends with the client stopped and a person
//! asked, because missed attestations cost little.

mod beacon;
mod client_runner;
mod instance;
mod slots;
#[cfg(feature = "kubernetes")]
mod stateful_set;
mod validator_settings;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, NoArguments, Risk, Run, Tool, ToolError, ToolSpec, operation, read_operation};

use self::beacon::{Beacon, Chain};
use self::client_runner::Runner;
use self::instance::Instance;
use self::slots::safe_slot;
use self::validator_settings::ValidatorSettings;
use crate::marks::Mark;
use crate::rest::Rest;
use crate::{Context, Declared, SettingError, ToolKind};

/// Default maximum duration of an execution: two epochs to wait for a slot, two of quiet, and the stop itself.
const DEFAULT_DURATION: Duration = Duration::from_secs(3600);
/// Maximum duration of the client's stop and of its start.
const PROCESS_DURATION: Duration = Duration::from_secs(120);

/// The `restart_validator_client` tool.
#[derive(Debug)]
pub(crate) struct RestartValidatorClientTool {
    targets: Vec<Declared<ValidatorSettings>>,
    context: Context,
}

/// One client with its beacon node.
struct Client<'a> {
    settings: &'a ValidatorSettings,
    runner: Runner,
    beacon: Beacon,
}

impl RestartValidatorClientTool {
    fn open(&self, call: &ToolCall) -> Result<Client<'_>, ToolError> {
        let declared = self.targets.iter().find(|target| target.name() == call.target);
        let declared =
            declared.ok_or_else(|| ToolError::Invalid(format!("target {:?} is not declared", call.target)))?;
        let settings = &declared.settings;
        let token = settings.beacon_token.as_ref().map(|token| self.context.secrets.resolve(token)).transpose()?;
        let rest = Rest {
            http: self.context.http(),
            name: "the beacon node",
            url: settings.beacon_url.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.as_str().to_owned()),
            headers: &[("Accept", "application/json")],
        };
        let validators = settings.validators.iter().map(u64::to_string).collect();
        let runner = Runner::open(settings, &self.context)?;
        Ok(Client { settings, runner, beacon: Beacon { rest, validators } })
    }
}

impl ToolKind for RestartValidatorClientTool {
    const NAME: &'static str = "restart_validator_client";
    type Settings = ValidatorSettings;

    fn check_settings(settings: &ValidatorSettings) -> Result<(), SettingError> {
        settings.check()
    }

    fn new(targets: Vec<Declared<ValidatorSettings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl Tool for RestartValidatorClientTool {
    fn spec(&self) -> ToolSpec {
        let restart = "restart the client once its stop is proven, at a slot without a proposal";
        let operations = vec![
            operation::<NoArguments>("restart", restart, Risk::High, false),
            read_operation::<NoArguments>("status", "the client's process, and whether the chain sees its validators"),
        ];
        ToolSpec {
            timeout: DEFAULT_DURATION,
            ..ToolSpec::new(Self::NAME, "a validator client of Ethereum", operations)
        }
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        match call.operation.as_str() {
            "restart" | "status" => Ok(()),
            other => Err(ToolError::Invalid(format!("restart_validator_client has no operation {other:?}"))),
        }
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let client = self.open(call)?;
        client.beacon.slot()?;
        let instance = client.runner.inspect()?;
        if let Instance::Unclear(reason) = &instance {
            return Err(ToolError::Invalid(format!("whether {} runs is unclear: {reason}", client.runner.name())));
        }
        let ValidatorSettings { validators, window_slots, quiet_epochs, .. } = client.settings;
        let count = validators.len();
        let now = if instance == Instance::Stopped { "is stopped" } else { "runs" };
        Ok(DryRun {
            diff: format!(
                "{} ({count} validators) {now}; it is stopped at a slot with no proposal in the next {window_slots}, and \
                 started when its process has ended and the chain has seen none of the validators for {quiet_epochs} \
                 whole epochs",
                client.runner.name()
            ),
            blast_radius: format!("{count} validators miss up to {} attestations each", quiet_epochs + 2),
            affected: Some(count as u64),
            risk: Risk::High.as_str().to_owned(),
            reversible: false,
            precondition: instance.fingerprint(),
            undo: None,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let client = self.open(call)?;
        let marks = self.context.marks(Self::NAME);
        if marks.get(run.key)?.is_some() {
            let outcome = self.probe(call, run.precondition, run.key)?;
            if outcome != Outcome::NotApplied {
                return Ok(Applied::new(outcome, "an execution of this key began before"));
            }
        }
        client.check_unchanged(run)?;
        let deadline = Instant::now() + run.timeout;
        let chain = client.beacon.chain()?;
        client.await_safe_slot(chain, run, deadline)?;
        client.check_unchanged(run)?;
        marks.set(run.key, &Mark { before: run.precondition.to_owned(), after: None })?;
        let applied = client.restart(chain, run, deadline)?;
        if applied.outcome == Outcome::Applied {
            let after = Some(client.runner.inspect()?.fingerprint());
            marks.set(run.key, &Mark { before: run.precondition.to_owned(), after })?;
        }
        Ok(applied)
    }

    fn probe(&self, call: &ToolCall, _precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let Some(mark) = self.context.marks(Self::NAME).get(key)? else { return Ok(Outcome::NotApplied) };
        let client = self.open(call)?;
        let instance = client.runner.inspect()?;
        Ok(match &instance {
            _ if mark.after.is_some() => Outcome::Applied,
            Instance::Running(_) if instance.fingerprint() == mark.before => Outcome::NotApplied,
            // Stopped by us and not started, or started by whom is not known: a person must look.
            Instance::Running(_) | Instance::Stopped | Instance::Unclear(_) => Outcome::Unknown,
        })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        Ok(self.open(call)?.runner.inspect()?.fingerprint())
    }

    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        let client = self.open(call)?;
        let slot = client.beacon.slot()?;
        let epoch = slot / client.beacon.chain()?.epoch_slots;
        let live = client.beacon.live(epoch.saturating_sub(1))?;
        Ok(json!({ "client": client.runner.inspect()?.fingerprint(), "slot": slot, "epoch": epoch,
            "validators": client.settings.validators.len(), "live_in_last_epoch": live.len() }))
    }
}

impl Client<'_> {
    fn check_unchanged(&self, run: &Run<'_>) -> Result<(), ToolError> {
        let found = self.runner.inspect()?.fingerprint();
        if found == run.precondition {
            return Ok(());
        }
        Err(ToolError::Stale(format!("{} is {found}", self.runner.name())))
    }

    /// Waits for a slot without a proposal near, and with few attestations.
    fn await_safe_slot(&self, chain: Chain, run: &Run<'_>, deadline: Instant) -> Result<(), ToolError> {
        let window = self.settings.window_slots;
        let mut chosen: Option<u64> = None;
        loop {
            let slot = self.beacon.slot()?;
            match chosen {
                // The head moves on by itself; it must not have passed the slot by much.
                Some(wanted) if slot + 1 >= wanted && slot < wanted + window => return Ok(()),
                Some(wanted) if slot < wanted => {}
                _ => {
                    let epoch = slot / chain.epoch_slots;
                    let mut duties = self.beacon.duties(epoch)?;
                    let next = self.beacon.duties(epoch + 1)?;
                    duties.proposals.extend(next.proposals);
                    duties.attestations.extend(next.attestations);
                    // Duties are known to the end of the next epoch.
                    let last = ((epoch + 2) * chain.epoch_slots).saturating_sub(window);
                    chosen = safe_slot(&duties, slot + 1, last, window);
                }
            }
            let goal =
                chosen.map_or_else(|| "duties are known for the next epoch".to_owned(), |slot| format!("slot {slot}"));
            (run.progress)(&format!("slot {slot}: waiting for {goal}"));
            pause(chain, run, deadline, "no slot without a proposal came; nothing was done")?;
        }
    }

    /// Stops the client, proves that it is stopped, and starts it.
    fn restart(&self, chain: Chain, run: &Run<'_>, deadline: Instant) -> Result<Applied, ToolError> {
        let name = self.runner.name();
        let unknown = |detail: String| Ok(Applied::new(Outcome::Unknown, format!("{detail}; nothing was started")));
        self.runner.stop()?;
        if !self.await_instance(chain, run, |instance| *instance == Instance::Stopped)? {
            return unknown(format!("{name} is not provably stopped: {}", self.runner.inspect()?.fingerprint()));
        }
        let stopped_at = loop {
            match self.beacon.slot() {
                Ok(slot) => break slot / chain.epoch_slots,
                Err(error) => {
                    (run.progress)(&format!("{name} is stopped; {error}"));
                    if pause(chain, run, deadline, "").is_err() {
                        return unknown(format!("{name} is stopped, and {error}"));
                    }
                }
            }
        };
        let quiet_until = stopped_at + self.settings.quiet_epochs;
        // An epoch counts once it is over and its last attestations could be seen. A beacon node that does not answer
        // for a while only makes it take longer.
        let quiet_slot = (quiet_until + 1) * chain.epoch_slots;
        while self.settings.quiet_epochs > 0 && self.beacon.slot().map_or(true, |slot| slot <= quiet_slot) {
            (run.progress)(&format!("{name} is stopped; watching the chain until the end of epoch {quiet_until}"));
            if let Err(error) = pause(chain, run, deadline, "the time for the restart is over") {
                return unknown(format!("{name} is stopped, and {error}"));
            }
        }
        for epoch in stopped_at + 1..=quiet_until {
            let live = self.beacon.live(epoch)?;
            if !live.is_empty() {
                let detail = format!("another client signs for validators {} (epoch {epoch})", live.join(", "));
                return unknown(format!("{name} is stopped, but {detail}"));
            }
        }
        // A person may have started it meanwhile.
        let instance = self.runner.inspect()?;
        if instance != Instance::Stopped {
            return unknown(format!("another user changed {name}: it is {}", instance.fingerprint()));
        }
        self.runner.start()?;
        if self.await_instance(chain, run, |instance| matches!(instance, Instance::Running(_)))? {
            return Ok(Applied::new(
                Outcome::Applied,
                format!("{name} is restarted after {} quiet epochs", self.settings.quiet_epochs),
            ));
        }
        let found = self.runner.inspect()?.fingerprint();
        Ok(Applied::new(Outcome::Unknown, format!("{name} was started once and is {found}")))
    }

    fn await_instance(
        &self,
        chain: Chain,
        run: &Run<'_>,
        is_it: impl Fn(&Instance) -> bool,
    ) -> Result<bool, ToolError> {
        let deadline = Instant::now() + PROCESS_DURATION.min(run.timeout / 4);
        loop {
            if is_it(&self.runner.inspect()?) {
                return Ok(true);
            }
            if pause(chain, run, deadline, "").is_err() {
                return Ok(false);
            }
        }
    }
}

/// Waits for a part of a slot; an error at the deadline.
fn pause(chain: Chain, run: &Run<'_>, deadline: Instant, late: &str) -> Result<(), ToolError> {
    let interval = Duration::from_millis(chain.slot_seconds * 250).min(run.timeout / 50);
    if Instant::now() + interval > deadline {
        return Err(ToolError::Unavailable(late.to_owned()));
    }
    std::thread::sleep(interval);
    Ok(())
}
