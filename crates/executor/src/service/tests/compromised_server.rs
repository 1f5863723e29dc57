//! A server that is taken over: it has every request, token and proof that it ever saw, and the socket. Nothing that it
//! sends may have an effect that a person has not signed for.

use wardroom_domain::Principal;
use wardroom_domain::approval_proof::{PROOF_NAMESPACE, ProofAction, SignedProof, Statement};
use wardroom_domain::executor::{Phase, ProofKind};

use super::*;
use crate::approval::signer::{ApprovalSigner, create_key};

/// Alice and bob approve with keys for `main`, oscar with one for `other`.
struct Signers {
    executor: TestExecutor,
    keys: tempfile::TempDir,
}

impl Signers {
    fn new() -> Self {
        let signers = Self { executor: TestExecutor::new(), keys: tempfile::tempdir().unwrap() };
        let lines: Vec<(String, &str)> = [("alice", "main"), ("bob", "main"), ("oscar", "other"), ("mallory", "none")]
            .map(|(name, tenant)| {
                let path = signers.keys.path().join(name);
                (create_key(&path, &Principal::new(name).unwrap()).unwrap().allowed_signers, tenant)
            })
            .into();
        signers.configure(&lines);
        signers
    }

    /// Lists these lines, except those of the tenant `none`.
    fn configure(&self, lines: &[(String, &str)]) {
        let entry = |(line, tenant): &(String, &str)| json!({ "tenant": tenant, "allowed-signers": line });
        let approvers: Vec<Value> = lines.iter().filter(|(_, tenant)| *tenant != "none").map(entry).collect();
        let config = json!({ "approvers": approvers, "targets": self.executor.targets() });
        std::fs::write(self.executor.config(), config.to_string()).unwrap();
    }

    fn line(&self, name: &str, options: &str) -> String {
        let public = std::fs::read_to_string(self.keys.path().join(format!("{name}.pub"))).unwrap();
        format!("{name} {options} {}", public.trim())
    }

    fn sign(&self, name: &str, statement: &Statement) -> String {
        let signer = ApprovalSigner::open(&self.keys.path().join(name), None).unwrap();
        signer.sign(statement).unwrap().to_text().unwrap()
    }

    fn approval(&self, name: &str, plan: &Plan) -> String {
        self.sign(name, &statement(ProofAction::Approve, plan))
    }
}

fn statement(action: ProofAction, plan: &Plan) -> Statement {
    let (tenant, incident) = (plan.tenant.clone(), plan.incident.clone());
    Statement::about_plan(action, tenant, incident, plan.sha256().unwrap(), clock::now())
}

#[test]
fn a_signature_approves_one_plan_once() {
    let signers = Signers::new();
    let executor = &signers.executor;
    let plan = executor.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    let proof = signers.approval("alice", &plan);
    let status = executor.authorize(&plan, &hash, &proof).unwrap();
    assert_eq!((status.phase, status.proof), (Phase::Authorized, Some(ProofKind::Ssh)));
    assert_eq!(status.approvals, [Principal::new("alice").unwrap()]);
    assert_eq!(executor.authorize(&plan, &hash, &proof), Err(RefusalCode::AlreadyUsed), "a replay");
    let of_bob = signers.approval("bob", &plan);
    assert_eq!(executor.authorize(&plan, &hash, &of_bob), Err(RefusalCode::AlreadyUsed));
    assert_eq!(executor.execute(&hash).unwrap().executed, Some(Outcome::Applied));
    assert_eq!(executor.authorize(&plan, &hash, &proof), Err(RefusalCode::AlreadyUsed));
    let ledger = std::fs::read_to_string(executor.dir.path().join("executor/ledger.jsonl")).unwrap();
    assert!(ledger.contains("BEGIN SSH SIGNATURE") && ledger.contains("SHA256:"), "the proof can be verified again");
}

#[test]
fn nothing_that_the_server_has_authorises_another_action() {
    let signers = Signers::new();
    let executor = &signers.executor;
    // What the server has seen: a valid proof, which it has used.
    let seen_plan = executor.plan("rollback", MINUTE);
    let seen = signers.approval("alice", &seen_plan);
    executor.authorize(&seen_plan, &seen_plan.sha256().unwrap(), &seen).unwrap();
    let plan = executor.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    let changed = |change: &dyn Fn(&mut Statement)| {
        let mut changed = statement(ProofAction::Approve, &plan);
        change(&mut changed);
        changed
    };
    let as_proof = |text: &str| serde_json::from_str::<SignedProof>(text).unwrap();
    let later = SignedProof { time: clock::now().plus(Duration::from_secs(1)), ..as_proof(&seen) };
    let broken_glass = SignedProof { break_glass: Some("urgent".into()), ..as_proof(&signers.approval("bob", &plan)) };
    let mut cut = as_proof(&signers.approval("alice", &plan));
    cut.signature = cut.signature.replacen("U1NIU0lH", "U1NIU0lI", 1);
    let past = |seconds: u64| clock::now().minus(Duration::from_secs(seconds));
    let refused = [
        // Tokens and secrets from its database, also those that approved once.
        (APPROVER_TOKEN.to_owned(), RefusalCode::NotAnApprover),
        (OTHER_TOKEN.to_owned(), RefusalCode::NotAnApprover),
        (UNDO_SECRET.to_owned(), RefusalCode::NotAnApprover),
        (String::new(), RefusalCode::NotApproved),
        ("{}".to_owned(), RefusalCode::InvalidProof),
        ("x".repeat(20_000), RefusalCode::InvalidProof),
        // Proofs of another plan, incident, tenant, action, time.
        (seen.clone(), RefusalCode::InvalidProof),
        (later.to_text().unwrap(), RefusalCode::InvalidProof),
        (signers.sign("alice", &changed(&|it| it.incident = Some("other".into()))), RefusalCode::InvalidProof),
        (signers.sign("alice", &changed(&|it| it.tenant = TenantId::new("other").unwrap())), RefusalCode::InvalidProof),
        (signers.sign("alice", &changed(&|it| it.plan_sha256 = Some("0".repeat(64)))), RefusalCode::InvalidProof),
        (signers.sign("alice", &statement(ProofAction::Undo, &plan)), RefusalCode::InvalidProof),
        (signers.sign("alice", &statement(ProofAction::Review, &plan)), RefusalCode::InvalidProof),
        (signers.sign("alice", &changed(&|it| it.version = 2)), RefusalCode::InvalidProof),
        // Stale, and from the future.
        (signers.sign("alice", &changed(&|it| it.time = past(601))), RefusalCode::InvalidProof),
        (signers.sign("alice", &changed(&|it| it.time = past(0).plus(MINUTE * 2))), RefusalCode::InvalidProof),
        // Changed on the way.
        (broken_glass.to_text().unwrap(), RefusalCode::InvalidProof),
        (cut.to_text().unwrap(), RefusalCode::InvalidProof),
        // Of an approver of another tenant, and of an unknown key.
        (signers.approval("oscar", &plan), RefusalCode::NotAnApprover),
        (signers.approval("mallory", &plan), RefusalCode::NotAnApprover),
    ];
    for (proof, expected) in refused {
        let shown: String = proof.chars().take(300).collect();
        assert_eq!(executor.authorize(&plan, &hash, &proof), Err(expected), "{shown}");
        assert_eq!(executor.execute(&hash), Err(RefusalCode::NotApproved), "{shown}");
    }
    // A plan of its own making, with a proof of the plan that the person saw.
    let own = Plan { control: "mail".into(), ..plan.clone() };
    let proof = signers.approval("alice", &plan);
    assert_eq!(executor.authorize(&own, &own.sha256().unwrap(), &proof), Err(RefusalCode::InvalidProof));
    assert_eq!(executor.authorize(&own, &hash, &proof), Err(RefusalCode::HashMismatch));
    assert_eq!(executor.effects(), 0);
}

/// A signature for commits, or for a login, is none for approvals.
#[test]
fn a_signature_of_another_namespace_does_not_count() {
    let signers = Signers::new();
    let plan = signers.executor.plan("restart", MINUTE);
    let proof = signers.approval("alice", &plan);
    let signed: SignedProof = serde_json::from_str(&proof).unwrap();
    let parsed = ssh_key::SshSig::from_pem(&signed.signature).unwrap();
    assert_eq!(parsed.namespace(), PROOF_NAMESPACE);
    let (key, hash, signature) = (parsed.public_key().clone(), parsed.hash_alg(), parsed.signature().clone());
    let other = ssh_key::SshSig::new(key, "git", hash, signature).unwrap();
    let forged = SignedProof { signature: other.to_pem(ssh_key::LineEnding::LF).unwrap(), ..signed };
    let (code, hash) = (RefusalCode::InvalidProof, plan.sha256().unwrap());
    assert_eq!(signers.executor.authorize(&plan, &hash, &forged.to_text().unwrap()), Err(code));
}

#[test]
fn a_key_that_is_removed_or_over_loses_its_authority_at_once() {
    let signers = Signers::new();
    let executor = &signers.executor;
    let plan = executor.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    executor.authorize(&plan, &hash, &signers.approval("alice", &plan)).unwrap();
    // Another key of the same name does not inherit the approval.
    let key_of_bob = signers.line("bob", "").replacen("bob", "alice", 1);
    signers.configure(&[(key_of_bob, "main")]);
    assert_eq!(executor.execute(&hash), Err(RefusalCode::NotAnApprover));
    signers.configure(&[(signers.line("alice", "valid-before=\"20200101Z\""), "main")]);
    let other = executor.plan("rollback", MINUTE);
    let proof = signers.approval("alice", &other);
    assert_eq!(executor.authorize(&other, &other.sha256().unwrap(), &proof), Err(RefusalCode::NotAnApprover));
    signers.configure(&[(signers.line("alice", "valid-after=\"20990101Z\""), "main")]);
    assert_eq!(executor.authorize(&other, &other.sha256().unwrap(), &proof), Err(RefusalCode::NotAnApprover));
    let lines = format!("{}\n{}", signers.line("alice", "namespaces=\"git\""), signers.line("bob", ""));
    signers.configure(&[(lines, "main")]);
    assert_eq!(executor.authorize(&other, &other.sha256().unwrap(), &proof), Err(RefusalCode::NotAnApprover));
    assert_eq!(executor.effects(), 0);
}

#[test]
fn a_stop_holds_until_an_approver_signs_for_its_end() {
    let mut signers = Signers::new();
    let plan = signers.executor.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    signers.executor.authorize(&plan, &hash, &signers.approval("alice", &plan)).unwrap();
    let stop = |executor: &TestExecutor, request| match executor.service.handle(request, Deadline::default()) {
        Response::StopState { stopped } => Ok(stopped),
        Response::Refused { code, .. } => Err(code),
        other => panic!("{other:?}"),
    };
    let by = Principal::new("carol").unwrap();
    let stopped = stop(&signers.executor, Request::StopAll { by, reason: "it restarts everything".into() });
    let id = stopped.unwrap().unwrap().id;
    assert_eq!(signers.executor.execute(&hash), Err(RefusalCode::Stopped));
    signers.executor.restart();
    let executor = &signers.executor;
    assert_eq!(executor.execute(&hash), Err(RefusalCode::Stopped), "also after a restart");
    let resume = |stop: &str| Statement::resume(TenantId::main(), stop.to_owned(), clock::now());
    for (name, statement) in [("mallory", resume(&id)), ("oscar", resume(&id)), ("alice", resume("another stop"))] {
        let request = Request::Resume { proof: signers.sign(name, &statement) };
        assert!(stop(executor, request).is_err(), "{name}");
    }
    for proof in [APPROVER_TOKEN.to_owned(), String::new(), signers.approval("alice", &plan)] {
        assert!(stop(executor, Request::Resume { proof }).is_err());
    }
    assert_eq!((executor.execute(&hash), executor.effects()), (Err(RefusalCode::Stopped), 0));
    let proof = signers.sign("alice", &resume(&id));
    assert_eq!(stop(executor, Request::Resume { proof: proof.clone() }), Ok(None));
    assert_eq!(executor.execute(&hash).unwrap().executed, Some(Outcome::Applied));
    // The proof of the end of one stop ends no other.
    std::thread::sleep(Duration::from_millis(2));
    crate::protocol::request_stop(executor.dir.path(), &Principal::new("carol").unwrap(), "again").unwrap();
    let state = stop(executor, Request::StopState).unwrap().unwrap();
    assert!(state.by.as_str() == "carol" && state.reason == "again" && state.id != id);
    assert_eq!(stop(executor, Request::Resume { proof }), Err(RefusalCode::InvalidProof));
}

#[test]
fn broken_glass_needs_a_reason_and_another_persons_review() {
    let signers = Signers::new();
    let executor = &signers.executor;
    // No action of this target is permitted by the policy's rate.
    let break_glass = |name: &str, plan: &Plan, reason: &str| {
        let mut statement = statement(ProofAction::BreakGlass, plan);
        statement.reason = Some(reason.to_owned());
        signers.sign(name, &statement)
    };
    let plan = executor.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    assert_eq!(executor.authorize(&plan, &hash, &break_glass("alice", &plan, " ")), Err(RefusalCode::InvalidProof));
    let proof = break_glass("alice", &plan, "the shop is down at night");
    let status = executor.authorize(&plan, &hash, &proof).unwrap();
    assert!(status.review_due && status.phase == Phase::Authorized);
    assert_eq!(executor.execute(&hash).unwrap().executed, Some(Outcome::Applied));
    let second = executor.plan("restart", MINUTE);
    let again = break_glass("bob", &second, "again");
    let refused = executor.authorize(&second, &second.sha256().unwrap(), &again);
    assert_eq!(refused, Err(RefusalCode::NotApproved), "the first one is not reviewed");
    let review = |name: &str| {
        let proof = signers.sign(name, &statement(ProofAction::Review, &plan));
        executor.request(Request::Review { plan_sha256: hash.clone(), proof })
    };
    assert_eq!(review("alice"), Err(RefusalCode::NotAnApprover), "who approved does not review");
    assert_eq!(review("oscar"), Err(RefusalCode::NotAnApprover));
    assert!(!review("bob").unwrap().review_due);
    executor.authorize(&second, &second.sha256().unwrap(), &again).unwrap();
}

#[test]
fn broken_glass_passes_a_change_freeze_and_an_approval_does_not() {
    let signers = Signers::new();
    let executor = &signers.executor;
    let [before, frozen, urgent] = ["restart", "restart", "rollback"].map(|operation| executor.plan(operation, MINUTE));
    let frozen = Plan { runbook: "another".into(), ..frozen };
    let [before_hash, frozen_hash, urgent_hash] = [&before, &frozen, &urgent].map(|plan| plan.sha256().unwrap());
    executor.authorize(&before, &before_hash, &signers.approval("alice", &before)).unwrap();
    let lines = format!("{}\n{}", signers.line("alice", ""), signers.line("bob", ""));
    let freeze = json!({ "name": "release", "from": clock::now().minus(MINUTE), "to": clock::now().plus(MINUTE) });
    let config = json!({
        "approvers": [{ "tenant": "main", "allowed-signers": lines }], "targets": executor.targets(),
        "policy": { "freezes": [freeze] },
    });
    std::fs::write(executor.config(), config.to_string()).unwrap();
    assert_eq!(executor.execute(&before_hash), Err(RefusalCode::Denied), "approved before the freeze");
    let refused = executor.authorize(&frozen, &frozen_hash, &signers.approval("alice", &frozen));
    assert_eq!(refused, Err(RefusalCode::Denied));
    assert_eq!(executor.execute(&frozen_hash), Err(RefusalCode::NotApproved));
    let mut statement = statement(ProofAction::BreakGlass, &urgent);
    statement.reason = Some("the shop is down".to_owned());
    let status = executor.authorize(&urgent, &urgent_hash, &signers.sign("alice", &statement)).unwrap();
    assert!(status.review_due);
    assert_eq!(executor.execute(&urgent_hash).unwrap().executed, Some(Outcome::Applied));
    assert_eq!(executor.effects(), 1);
}
