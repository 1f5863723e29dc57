//! Makes proofs: the approver's side, used by the command line.
//!
//! A key is an OpenSSH file. An Ed25519 key without a passphrase signs here; every other one signs in the SSH agent,
//! which finds it by the public key. The server takes no part in it.

use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, Signature, SshSig};
use wardroom_domain::Principal;
use wardroom_domain::approval_proof::{PROOF_NAMESPACE, SignedProof, Statement};

use super::agent;
use super::ssh_signature::to_text;

/// Length of the random seed of an Ed25519 key, in bytes.
const SEED_BYTES: usize = 32;

/// Signs statements with one key.
#[derive(Debug)]
pub struct ApprovalSigner {
    public_key: KeyData,
    source: KeySource,
}

#[derive(Debug)]
enum KeySource {
    File(Box<Ed25519Keypair>),
    Agent(PathBuf),
}

impl ApprovalSigner {
    /// Reads a key: a private key, or the public key of one in the agent behind `agent`, a Unix socket.
    ///
    /// # Errors
    /// Returns an error that says what to do if the file is no key, or cannot sign and there is no agent.
    pub fn open(file: &Path, agent: Option<&Path>) -> Result<Self> {
        let with_path = |reason: String| Error::new(ErrorKind::InvalidData, format!("{}: {reason}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| with_path(error.to_string()))?;
        let (public_key, source) = if text.contains("PRIVATE KEY-----") {
            let key = PrivateKey::from_openssh(&text).map_err(|error| {
                with_path(format!("it is not a private key in OpenSSH's format: {error}; `ssh-keygen -p -f` converts"))
            })?;
            let source = match key.key_data() {
                KeypairData::Ed25519(pair) => Some(KeySource::File(Box::new(pair.clone()))),
                _ => None,
            };
            (key.public_key().key_data().clone(), source)
        } else {
            let key =
                PublicKey::from_openssh(&text).map_err(|error| with_path(format!("it is no SSH key: {error}")))?;
            (key.key_data().clone(), None)
        };
        let agent = || agent.map(|socket| KeySource::Agent(socket.to_owned()));
        let source = source.or_else(agent).ok_or_else(|| {
            let reason = "only an Ed25519 key without a passphrase signs from a file; add this one to an SSH agent \
                          (`ssh-add`), or create a key with `wardroom approver keygen`";
            with_path(reason.to_owned())
        })?;
        Ok(Self { public_key, source })
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// Returns an error if the agent does not sign.
    pub fn sign(&self, statement: &Statement) -> Result<SignedProof> {
        let message = statement.message().map_err(Error::other)?;
        let hash = HashAlg::Sha512;
        let data = SshSig::signed_data(PROOF_NAMESPACE, hash, message.as_bytes()).map_err(Error::other)?;
        let signature = match &self.source {
            KeySource::File(pair) => sign_with(pair, &data)?,
            KeySource::Agent(socket) => agent::sign(socket, &self.public_key, &data)?,
        };
        let signature = SshSig::new(self.public_key.clone(), PROOF_NAMESPACE, hash, signature);
        let signature = signature.map_err(Error::other)?;
        let signature = to_text(&signature).ok_or_else(|| Error::other("the key has made no signature"))?;
        Ok(SignedProof::ssh(statement.time, signature, statement.reason.clone()))
    }
}

fn sign_with(pair: &Ed25519Keypair, data: &[u8]) -> Result<Signature> {
    let key = Ed25519KeyPair::from_seed_and_public_key(&pair.private.to_bytes(), &pair.public.0);
    let key = key.map_err(|error| Error::new(ErrorKind::InvalidData, format!("the key is damaged: {error}")))?;
    Signature::new(Algorithm::Ed25519, key.sign(data).as_ref()).map_err(Error::other)
}

/// A new key.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// File of the public key.
    pub public_key_file: PathBuf,
    /// SHA-256 fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The line for `allowed-signers` of the executor's configuration.
    pub allowed_signers: String,
}

/// Creates an Ed25519 key for an approver: the private key at `file` (mode 0600) and the public key at `file.pub`.
///
/// # Errors
/// Returns an error if a file exists already, or cannot be written.
pub fn create_key(file: &Path, principal: &Principal) -> Result<NewKey> {
    let failed = || Error::other("the system's random number generator failed");
    let mut seed = [0; SEED_BYTES];
    SystemRandom::new().fill(&mut seed).map_err(|_| failed())?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| failed())?;
    let public: [u8; SEED_BYTES] = pair.public_key().as_ref().try_into().map_err(|_| failed())?;
    let pair = Ed25519Keypair { public: Ed25519PublicKey(public), private: Ed25519PrivateKey::from_bytes(&seed) };
    let key = PrivateKey::new(KeypairData::Ed25519(pair), principal.as_str()).map_err(Error::other)?;
    let public_text = key.public_key().to_openssh().map_err(Error::other)?;
    let public_key_file = PathBuf::from(format!("{}.pub", file.display()));
    write_new(file, 0o600, &key.to_openssh(LineEnding::LF).map_err(Error::other)?)?;
    write_new(&public_key_file, 0o644, &format!("{public_text}\n"))?;
    let allowed_signers = format!("{principal} namespaces=\"{PROOF_NAMESPACE}\" {public_text}");
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    Ok(NewKey { public_key_file, fingerprint, allowed_signers })
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<()> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|error| Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
