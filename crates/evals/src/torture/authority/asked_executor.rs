//! A running executor that is asked through its socket, with approvers whose keys are at hand.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use wardroom_domain::approval_proof::{ProofAction, SignedProof, Statement};
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::{RefusalCode, Response};
use wardroom_domain::{Plan, Principal, Timestamp};
use wardroom_executor::{ApprovalSigner, create_key};
use wardroom_testing::{Server, Shop, now_ms};

use crate::bar::BarOptions;
use crate::torture::executor_socket::ask_executor;

/// The target of all plans.
pub(super) const TARGET: &str = "cart";
/// Who approves with a token, the weak mode.
const TOKEN_APPROVER: &str = "carol";
/// Her token.
pub(super) const TOKEN: &str = "the token of carol";
/// Lifetime of a plan.
const PLAN_LIFETIME: Duration = Duration::from_secs(600);

/// An executor with its target.
pub(super) struct AskedExecutor {
    shop: Shop,
    server: Server,
    dir: PathBuf,
    /// Lines of the approvers, `tenant` and `allowed-signers`.
    approvers: Vec<Value>,
    plans: i64,
}

impl AskedExecutor {
    /// Starts one: alice and bob approve for `main` and oscar for `other` with keys, carol for `main` with a token.
    /// Mallory has a key that is not listed.
    pub(super) fn start(dir: &Path, options: &BarOptions) -> anyhow::Result<Self> {
        let shop = Shop::start(&dir.join("shop"), &[])?;
        let environment = [("WARDROOM_MUTANT", options.mutant_name())];
        let environment = if options.mutant.is_some() { &environment[..] } else { &[] };
        let server = Server::start(&dir.join("server"), &shop.target(TARGET), environment)?;
        let keys = dir.join("keys");
        std::fs::create_dir_all(&keys)?;
        let mut approvers = vec![json!({
            "tenant": "main", "principal": TOKEN_APPROVER, "proof": "token", "token-sha256": sha256_hex(TOKEN.as_bytes())
        })];
        for (name, tenant) in [("alice", "main"), ("bob", "main"), ("oscar", "other"), ("mallory", "")] {
            let principal = Principal::new(name).map_err(anyhow::Error::msg)?;
            let line = create_key(&keys.join(name), &principal)?.allowed_signers;
            if !tenant.is_empty() {
                approvers.push(json!({ "tenant": tenant, "allowed-signers": line }));
            }
        }
        let executor = Self { shop, server, dir: dir.to_owned(), approvers, plans: 0 };
        executor.configure(&json!({}))?;
        Ok(executor)
    }

    /// Writes the executor's file, with this section `policy`. It is in force with the next request.
    pub(super) fn configure(&self, policy: &Value) -> anyhow::Result<()> {
        let target = |name: &str, tenant: &str| {
            json!({ "tool": "process", "name": name, "tenant": tenant, "url": self.shop.control, "token": "control",
                "actions-per-hour": 1000 })
        };
        let config = json!({
            "approvers": self.approvers, "targets": [target(TARGET, "main"), target("newsletter", "other")],
            "policy": policy,
        });
        let (path, new) = (&self.server.executor_config, self.dir.join("executor.new"));
        let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(config.to_string().as_bytes())?;
        Ok(std::fs::rename(new, path)?)
    }

    /// The folder of the executor's file; what that names is read there.
    pub(super) fn config_folder(&self) -> PathBuf {
        self.server.executor_config.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Makes a plan that could be carried out now; no two have the same hash.
    pub(super) fn plan(&mut self) -> anyhow::Result<Plan> {
        let call = json!({ "tool": "process", "operation": "restart", "target": TARGET });
        let answer = ask_executor(&self.server, &json!({ "op": "dry_run", "tenant": "main", "call": call }))?;
        let Response::DryRun { dry_run } = answer else { bail!("no dry run: {answer:?}") };
        self.plans += 1;
        let expires_at = Timestamp::from_millis(now_ms() + self.plans).plus(PLAN_LIFETIME);
        let plan = json!({
            "version": 1, "tenant": "main", "incident": "k", "call": call, "dry_run": dry_run,
            "runbook": "restart-service", "control": "none", "expires_at": expires_at,
        });
        Ok(serde_json::from_value(plan)?)
    }

    /// The proof of a person for a statement.
    pub(super) fn sign(&self, name: &str, statement: &Statement) -> anyhow::Result<SignedProof> {
        Ok(ApprovalSigner::open(&self.dir.join("keys").join(name), None)?.sign(statement)?)
    }

    /// The proof of a person that they approve a plan.
    pub(super) fn approval(&self, name: &str, plan: &Plan) -> anyhow::Result<SignedProof> {
        self.sign(name, &statement(ProofAction::Approve, plan)?)
    }

    /// Asks for an approval. Returns the refusal, if it was refused.
    pub(super) fn authorize(&self, plan: &Plan, hash: &str, proof: &str) -> anyhow::Result<Option<RefusalCode>> {
        self.refusal_of(&json!({ "op": "authorize", "plan": plan, "plan_sha256": hash, "proof": proof }))
    }

    /// Asks for the execution, and waits for it. Returns the refusal, if it was refused.
    pub(super) fn execute(&self, hash: &str) -> anyhow::Result<Option<RefusalCode>> {
        self.refusal_of(&json!({ "op": "execute", "plan_sha256": hash }))
    }

    /// Sends a request about a plan.
    pub(super) fn refusal_of(&self, request: &Value) -> anyhow::Result<Option<RefusalCode>> {
        match ask_executor(&self.server, request)? {
            Response::Status { .. } => Ok(None),
            Response::Refused { code, .. } => Ok(Some(code)),
            other => bail!("neither a status nor a refusal: {other:?}"),
        }
    }

    /// Number of effects at the target so far.
    pub(super) fn effects(&self) -> anyhow::Result<u64> {
        Ok(self.shop.effects_since(Timestamp::default())?.len() as u64)
    }
}

/// The statement about a plan, signed now.
pub(super) fn statement(action: ProofAction, plan: &Plan) -> anyhow::Result<Statement> {
    let hash = plan.sha256().map_err(anyhow::Error::msg)?;
    let (tenant, incident) = (plan.tenant.clone(), plan.incident.clone());
    Ok(Statement::about_plan(action, tenant, incident, hash, Timestamp::from_millis(now_ms())))
}
