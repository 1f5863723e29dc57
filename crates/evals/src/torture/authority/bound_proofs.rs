//! Bar 3e: an approval is good for the one plan that was signed. Each trial changes a field of a plan, or a proof, and
//! asks the executor for it; all must be refused, and the target must see nothing. `kills` is the number of trials.
//!
//! A plan that is written in another way (order of keys, white space) is the same one: its hash must not change.

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_domain::approval_proof::{ProofAction, SignedProof};
use wardroom_domain::executor::RefusalCode;
use wardroom_domain::{Plan, Timestamp};

use super::asked_executor::{AskedExecutor, TOKEN, statement};
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// Trials between two lines of progress.
const PROGRESS_INTERVAL: u64 = 1000;
/// Trials with one plan and its proofs, which are good for ten minutes.
const TRIALS_OF_ONE_PLAN: u64 = 500;

/// Runs the trials.
pub(in crate::torture) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("3e")?;
    let mut executor = AskedExecutor::start(&dir, options)?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut result = BarResult { issued: options.kills, kills: options.kills, ..BarResult::default() };
    // What a server has seen: a proof that was used.
    let seen_plan = executor.plan()?;
    let seen = executor.approval("alice", &seen_plan)?;
    let accepted = executor.authorize(&seen_plan, &hash_of(&seen_plan)?, &text_of(&seen)?)?;
    ensure!(accepted.is_none(), "a valid approval was refused: {accepted:?}");
    let mut plan = executor.plan()?;
    for trial in 0..options.kills {
        if trial.is_multiple_of(TRIALS_OF_ONE_PLAN) {
            plan = executor.plan()?;
        }
        let found = if trial.is_multiple_of(3) {
            try_proof(&executor, &plan, &seen, &mut random)?
        } else {
            try_plan(&executor, &plan, &mut random)?
        };
        result.acked += 1;
        if let Some(accepted) = found {
            result.spurious += 1;
            result.faults.push(format!("trial {trial}: {accepted}"));
        }
        let rewritten = rewrite(&serde_json::to_value(&plan)?, &mut random);
        if hash_of(&serde_json::from_str::<Plan>(&rewritten)?)? != hash_of(&plan)? {
            result.corrupted += 1;
            result.faults.push(format!("trial {trial}: another hash of the same plan: {rewritten}"));
        }
        if (trial + 1).is_multiple_of(PROGRESS_INTERVAL) {
            print_progress(format!("{} of {} trials", trial + 1, options.kills));
        }
        if options.mutant.is_some() && !result.is_clean() {
            break;
        }
    }
    result.spurious += executor.effects()?;
    if result.is_clean() {
        check_the_valid_one(&mut executor, &mut result)?;
    }
    drop(executor);
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// What none of the trials could, the right proof can, once.
fn check_the_valid_one(executor: &mut AskedExecutor, result: &mut BarResult) -> anyhow::Result<()> {
    let plan = executor.plan()?;
    let (hash, proof) = (hash_of(&plan)?, text_of(&executor.approval("bob", &plan)?)?);
    let answers = [
        executor.authorize(&plan, &hash, &proof)?,
        executor.execute(&hash)?,
        executor.authorize(&plan, &hash, &proof)?,
        executor.execute(&hash)?,
    ];
    let effects = executor.effects()?;
    if answers != [None, None, Some(RefusalCode::AlreadyUsed), None] || effects != 1 {
        result.faults.push(format!("the valid approval: {answers:?}, {effects} effects"));
    }
    Ok(())
}

/// Asks for a changed plan with the proofs of the original. Returns what was accepted.
fn try_plan(executor: &AskedExecutor, plan: &Plan, random: &mut StdRng) -> anyhow::Result<Option<String>> {
    let changed = change(plan, random)?;
    let (hash, changed_hash) = (hash_of(plan)?, hash_of(&changed)?);
    let proof = text_of(&executor.approval("alice", plan)?)?;
    let proof = proof.as_str();
    let requests = [("its own hash", &changed_hash, proof), ("the signed hash", &hash, proof)];
    for (what, hash, proof) in requests.into_iter().chain([("the signed hash and a token", &hash, TOKEN)]) {
        let refused = executor.authorize(&changed, hash, proof)?;
        if refused.is_none() {
            return Ok(Some(format!("a changed plan with {what}: {}", json!(changed))));
        }
    }
    is_executed(executor, &changed_hash, "a changed plan")
}

/// Asks for the plan with a proof that is none for it. Returns what was accepted.
fn try_proof(
    executor: &AskedExecutor,
    plan: &Plan,
    seen: &SignedProof,
    random: &mut StdRng,
) -> anyhow::Result<Option<String>> {
    let hash = hash_of(plan)?;
    let valid = executor.approval("alice", plan)?;
    let signed = |change: &dyn Fn(&mut Plan)| -> anyhow::Result<SignedProof> {
        let mut other = plan.clone();
        change(&mut other);
        executor.approval("alice", &other)
    };
    let past = |seconds: i64| Timestamp::from_millis(valid.time.millis() - seconds * 1000);
    let (what, proof) = match random.random_range(0..12) {
        0 => ("a proof that was used", text_of(seen)?),
        1 => {
            let other = SignedProof { time: past(random.random_range(1..100)), ..valid };
            ("a proof with another time", text_of(&other)?)
        }
        2 => {
            let other = SignedProof { break_glass: Some("urgent".to_owned()), ..valid };
            ("a proof made break-glass", text_of(&other)?)
        }
        3 => {
            let other = SignedProof { signature: flip(&valid.signature, random), ..valid };
            ("a proof with a changed signature", text_of(&other)?)
        }
        4 => ("a proof of another incident", text_of(&signed(&|plan| plan.incident.push('x'))?)?),
        5 => ("a proof of another runbook", text_of(&signed(&|plan| plan.runbook.push('x'))?)?),
        6 => ("a proof of an undo", text_of(&executor.sign("alice", &statement(ProofAction::Undo, plan)?)?)?),
        7 => ("a proof of another tenant's approver", text_of(&executor.approval("oscar", plan)?)?),
        8 => ("a proof of a stranger", text_of(&executor.approval("mallory", plan)?)?),
        number => ("a made-up proof of a browser", made_up(number, &valid, plan)?),
    };
    if executor.authorize(plan, &hash, &proof)?.is_none() {
        return Ok(Some(format!("{what}: {proof}")));
    }
    is_executed(executor, &hash, what)
}

/// A proof as a browser sends it, which nothing has signed.
fn made_up(number: u32, valid: &SignedProof, plan: &Plan) -> anyhow::Result<String> {
    let nonce = statement(ProofAction::Approve, plan)?.challenge().map_err(anyhow::Error::msg)?;
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "iss": "https://accounts.example", "sub": "alice", "email": "alice", "nonce": nonce });
    let token = format!("{}.{}.", part(json!({ "alg": "none" })), part(claims));
    let client_data = part(json!({ "type": "webauthn.get", "challenge": nonce, "origin": "https://localhost" }));
    let passkey = json!({ "id": "YQ", "client_data": client_data, "authenticator_data": "YQ", "signature": "YQ" });
    let proof = match number % 3 {
        0 => json!({ "time": valid.time, "id_token": token }),
        1 => json!({ "time": valid.time, "passkey": passkey }),
        _ => json!({ "time": valid.time, "signature": valid.signature, "id_token": token, "passkey": passkey }),
    };
    Ok(proof.to_string())
}

fn is_executed(executor: &AskedExecutor, hash: &str, what: &str) -> anyhow::Result<Option<String>> {
    Ok(executor.execute(hash)?.is_none().then(|| format!("{what} was executed")))
}

/// Changes one field of a plan.
fn change(plan: &Plan, random: &mut StdRng) -> anyhow::Result<Plan> {
    let mut changed = plan.clone();
    let number: u32 = random.random_range(1..1_000_000);
    match random.random_range(0..12) {
        0 => changed.call.target = format!("{}{number}", changed.call.target),
        1 => changed.call.operation = ["rollback", "settings"][number as usize % 2].to_owned(),
        2 => {
            changed.call.arguments.insert(format!("argument-{number}"), json!(number));
        }
        3 => changed.call.tool = ["exec", "http", "terraform"][number as usize % 3].to_owned(),
        4 => changed.dry_run.risk = ["none", "high", "critical"][number as usize % 3].to_owned(),
        5 => changed.dry_run.diff.push_str(&number.to_string()),
        6 => changed.dry_run.precondition.push_str(&number.to_string()),
        7 => changed.dry_run.undo = Some(changed.call.clone()),
        8 => changed.expires_at = Timestamp::from_millis(changed.expires_at.millis() + i64::from(number)),
        9 => changed.incident.push_str(&number.to_string()),
        10 => changed.control = format!("control-{number}"),
        _ => changed.dry_run.affected = Some(u64::from(number)),
    }
    ensure!(changed != *plan, "the plan was not changed");
    Ok(changed)
}

/// Flips a bit of the signature's base64.
fn flip(signature: &str, random: &mut StdRng) -> String {
    let mut bytes = signature.as_bytes().to_vec();
    // Between the first and the last line.
    let body: Vec<usize> = (40..bytes.len().saturating_sub(40)).filter(|at| bytes[*at].is_ascii_alphabetic()).collect();
    let at = body[random.random_range(0..body.len())];
    bytes[at] ^= 1;
    String::from_utf8(bytes).unwrap_or_default()
}

/// Writes JSON with keys in another order and with white space.
fn rewrite(value: &Value, random: &mut StdRng) -> String {
    let space = " ".repeat(random.random_range(0..3));
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            let first = random.random_range(0..fields.len().max(1));
            fields.rotate_left(first);
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(key, value)| format!("{}:{space}{}", json!(key), rewrite(value, random)))
                .collect();
            format!("{{{space}{}\n}}", fields.join(&format!(",{space}")))
        }
        other => other.to_string(),
    }
}

fn hash_of(plan: &Plan) -> anyhow::Result<String> {
    plan.sha256().map_err(anyhow::Error::msg)
}

fn text_of(proof: &SignedProof) -> anyhow::Result<String> {
    proof.to_text().map_err(anyhow::Error::msg).context("the proof cannot be written")
}
