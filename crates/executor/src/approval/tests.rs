//! Signatures of OpenSSH's own programs verify here, and ours verify there.

use std::path::Path;
use std::process::{Command, Stdio};

use wardroom_domain::Principal;
use wardroom_domain::approval_proof::Statement;

use super::*;
use crate::approval::signer::{ApprovalSigner, create_key};
use crate::config::ExecutorConfig;

const NOW: &str = "2026-11-30T14:00:00Z";

fn statement() -> Statement {
    let time = Timestamp::parse(NOW).unwrap();
    Statement::about_plan(ProofAction::Approve, TenantId::main(), "incident".into(), "ab".repeat(32), time)
}

fn claim() -> Claim {
    Claim::about_plan(ProofAction::Approve, &TenantId::main(), "incident", &"ab".repeat(32))
}

fn config(dir: &Path, line: &str) -> ExecutorConfig {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("executor.yaml");
    let text = serde_json::json!({ "approvers": [{ "tenant": "main", "allowed-signers": line }] }).to_string();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    ExecutorConfig::load(&path).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "tests start the programs of OpenSSH")]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn run(program: &str, arguments: &[&str], input: &str) -> (bool, String) {
    use std::io::Write;
    let mut child = command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Every type of key that OpenSSH makes, signed by `ssh-keygen -Y sign`.
#[test]
fn signatures_of_ssh_keygen_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("rsa", "2048"), ("rsa", "3072")] {
        let key = dir.path().join(format!("{kind}{bits}"));
        let key = key.to_str().unwrap();
        let (made, text) = run("ssh-keygen", &["-q", "-t", kind, "-b", bits, "-N", "", "-f", key], "");
        assert!(made, "{text}");
        let message = statement().message().unwrap();
        let (signed, signature) = run("ssh-keygen", &["-Y", "sign", "-n", PROOF_NAMESPACE, "-f", key], &message);
        assert!(signed, "{signature}");
        let (_, signature) = signature.split_once("-----BEGIN").unwrap();
        let (signature, _) = signature.split_once("-----END").unwrap();
        let signature = format!("-----BEGIN{signature}-----END SSH SIGNATURE-----\n");
        let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
        let config = config(dir.path(), &format!("alice {public}"));
        let now = Timestamp::parse(NOW).unwrap();
        let proof = SignedProof::ssh(now, signature, None);
        let proven = verify(&config, &claim(), &proof.to_text().unwrap(), now).unwrap();
        assert_eq!((proven.principal.as_str(), proven.kind), ("alice", ProofKind::Ssh), "{kind} {bits}");
        let (listed, fingerprint) = run("ssh-keygen", &["-l", "-f", key], "");
        assert!(listed && fingerprint.contains(proven.key.as_deref().unwrap()), "{fingerprint}");
        let other = Claim::about_plan(ProofAction::Approve, &TenantId::main(), "incident", &"ac".repeat(32));
        assert_eq!(verify(&config, &other, &proof.to_text().unwrap(), now).unwrap_err().0, RefusalCode::InvalidProof);
    }
}

/// What `approver keygen` makes is a key of OpenSSH's, and what it signs is a signature of OpenSSH's.
#[test]
fn ssh_keygen_verifies_our_signatures() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alice");
    let key = create_key(&file, &Principal::new("alice").unwrap()).unwrap();
    assert!(create_key(&file, &Principal::new("alice").unwrap()).is_err(), "an existing key is kept");
    let proof = ApprovalSigner::open(&file, None).unwrap().sign(&statement()).unwrap();
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let signers = path("signers", &format!("{}\n", key.allowed_signers));
    let signature = path("signature", &proof.signature);
    let verify_as = |namespace: &str, message: &str| {
        let arguments = ["-Y", "verify", "-f", &signers, "-I", "alice", "-n", namespace, "-s", &signature];
        run("ssh-keygen", &arguments, message)
    };
    let (verified, text) = verify_as(PROOF_NAMESPACE, &statement().message().unwrap());
    assert!(verified && text.contains("Good \"approval@wardroom\" signature for alice"), "{text}");
    assert!(!verify_as("git", &statement().message().unwrap()).0);
    assert!(!verify_as(PROOF_NAMESPACE, "another message").0);
    let (read, public) = run("ssh-keygen", &["-y", "-f", file.to_str().unwrap()], "");
    assert!(read && key.allowed_signers.contains(public.trim()), "{public}");
}

/// A key with a passphrase signs in an agent, which finds it by the public key.
#[test]
fn a_key_in_an_agent_signs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let mut agent = command("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..100 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = dir.path().join(kind);
        let name = key.to_str().unwrap();
        assert!(run("ssh-keygen", &["-q", "-t", kind, "-N", "", "-f", name], "").0);
        let added = command("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status().unwrap();
        assert!(added.success());
        assert!(run("ssh-keygen", &["-q", "-p", "-N", "passphrase", "-f", name], "").0);
        let public = format!("{name}.pub");
        for file in [Path::new(&public), &key] {
            let signer = ApprovalSigner::open(file, Some(&socket)).unwrap();
            let proof = signer.sign(&statement()).unwrap().to_text().unwrap();
            let config = config(dir.path(), &format!("alice {}", std::fs::read_to_string(&public).unwrap()));
            let now = Timestamp::parse(NOW).unwrap();
            assert_eq!(verify(&config, &claim(), &proof, now).unwrap().principal.as_str(), "alice", "{kind}");
        }
        let error = ApprovalSigner::open(&key, None).unwrap_err().to_string();
        assert!(error.contains("ssh-add") && error.contains("approver keygen"), "{error}");
    }
    let unknown = create_key(&dir.path().join("other"), &Principal::new("other").unwrap()).unwrap();
    let signer = ApprovalSigner::open(&unknown.public_key_file, Some(&socket)).unwrap();
    assert!(signer.sign(&statement()).unwrap_err().to_string().contains("ssh-add -l"));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

/// Characters of base64 and base64url.
const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=";

/// Returns texts that differ in one character: at each place three others, and at the last, whose bits need not all
/// count, every other. White space stays.
pub(crate) fn changed_characters(text: &str) -> Vec<String> {
    let places: Vec<(usize, char)> = text.char_indices().filter(|(_, found)| !found.is_whitespace()).collect();
    let last = places.last().map(|(at, _)| *at);
    let mut changed = Vec::new();
    for (at, found) in places {
        let index = ALPHABET.find(found).unwrap_or_default();
        let near = [index ^ 1, index ^ 2, index ^ 32];
        let others = ALPHABET.char_indices().filter(|(other, _)| Some(at) == last || near.contains(other));
        for (_, other) in others.filter(|(_, other)| *other != found) {
            let (before, after) = (text.get(..at).unwrap(), text.get(at + found.len_utf8()..).unwrap());
            changed.push(format!("{before}{other}{after}"));
        }
    }
    changed
}

/// Returns bytes that differ in one bit.
pub(crate) fn changed_bits(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(move |bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    })
}

/// Regression: a wrong length of the inner signature was accepted, so that one signature had several texts.
#[test]
fn a_signature_has_one_text() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
    const END: &str = "-----END SSH SIGNATURE-----";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alice");
    let key = create_key(&file, &Principal::new("alice").unwrap()).unwrap();
    let valid = ApprovalSigner::open(&file, None).unwrap().sign(&statement()).unwrap();
    let (config, now) = (config(dir.path(), &key.allowed_signers), Timestamp::parse(NOW).unwrap());
    let is_accepted = |signature: String| {
        let proof = SignedProof { signature, ..valid.clone() };
        verify(&config, &claim(), &proof.to_text().unwrap(), now).is_ok()
    };
    let body = valid.signature.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).unwrap();
    let bytes = STANDARD.decode(body.split_whitespace().collect::<String>()).unwrap();
    let of_body = |body: &str| format!("{BEGIN}{body}{END}\n");
    let of_bytes = |bytes: &[u8]| {
        let text = STANDARD.encode(bytes);
        let lines = text.as_bytes().chunks(70).map(|line| String::from_utf8(line.to_vec()).unwrap() + "\n");
        of_body(&lines.collect::<String>())
    };
    assert!(is_accepted(valid.signature.clone()) && is_accepted(of_bytes(&bytes)));
    for changed in changed_bits(&bytes) {
        assert!(!is_accepted(of_bytes(&changed)), "{changed:?}");
    }
    for changed in changed_characters(body) {
        assert!(!is_accepted(of_body(&changed)), "{changed}");
    }
    for (what, changed) in [
        ("longer", of_bytes(&[bytes.as_slice(), &[0]].concat())),
        ("shorter", of_bytes(&bytes[..bytes.len() - 1])),
        ("twice", valid.signature.repeat(2)),
        ("twice in one", of_bytes(&[bytes.as_slice(), bytes.as_slice()].concat())),
        ("another label", valid.signature.replace("SSH SIGNATURE", "SSH SIGNATUR")),
        ("a text before it", format!("signature:\n{}", valid.signature)),
    ] {
        assert!(!is_accepted(changed), "{what}");
    }
}

/// What a proof says twice could be read in two ways.
#[test]
fn a_proof_says_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alice");
    let key = create_key(&file, &Principal::new("alice").unwrap()).unwrap();
    let text = ApprovalSigner::open(&file, None).unwrap().sign(&statement()).unwrap().to_text().unwrap();
    let (config, now) = (config(dir.path(), &key.allowed_signers), Timestamp::parse(NOW).unwrap());
    let result = |text: &str| verify(&config, &claim(), text, now);
    assert!(result(&text).is_ok());
    let with = |field: &str| text.replacen('{', &format!("{{{field},"), 1);
    for changed in [
        with(r#""time":"2026-11-30T14:00:00Z""#),
        with(r#""time":"2026-11-30T14:05:00Z""#),
        with(r#""signature":"""#),
        with(r#""break_glass":"urgent""#),
        with(r#""passkey":{"id":"","client_data":"","authenticator_data":"","signature":""}"#),
        with(r#""Signature":"""#),
        format!("{text}{text}"),
        format!("[{text}]"),
    ] {
        let (code, detail) = result(&changed).unwrap_err();
        let is_refused = matches!(code, RefusalCode::InvalidProof | RefusalCode::NotAnApprover);
        assert!(is_refused, "{changed}: {detail}");
    }
}

mod parsing {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hostile proofs and lines are refused, and never end the process.
        #[test]
        fn any_text_is_refused(text in "\\PC{0,200}", line in "[ -~]{0,120}") {
            drop(allowed_signers::parse(&line));
            let proof = SignedProof::ssh(Timestamp::parse(NOW).unwrap(), text, None);
            let now = Timestamp::parse(NOW).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
            let config = config(dir.path(), &format!("alice {key}"));
            prop_assert!(verify(&config, &claim(), &proof.to_text().unwrap(), now).is_err());
        }
    }
}
