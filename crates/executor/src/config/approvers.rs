//! Who may approve, and what proves it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use ssh_key::HashAlg;
use ssh_key::public::KeyData;
use subtle::ConstantTimeEq;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::{ListedApprover, ProofKind};
use wardroom_domain::identity::token_id;
use wardroom_domain::{AccessRole, Principal, TenantId};

use super::browser_approvers::{self, ListedAccount, ListedPasskey};
use crate::approval::allowed_signers::{self, Signer};
use crate::approval::proof_key::{account_key, passkey_key};

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Approvers of a tenant: the SSH keys of any number of people, or one person who approves with a bearer token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Approver {
    /// Tenant whose plans they may approve.
    pub tenant: TenantId,
    /// Lines of OpenSSH's `allowed_signers` format: a name, options, and the public key of one person. `wardroom
    /// approver keygen` prints one. The name is the one in plans and in the audit log. Since 0.2.
    #[serde(default)]
    pub allowed_signers: String,
    /// Passkeys that may approve, a line each: `NAME CREDENTIAL-ID PUBLIC-KEY`, as the page on which one is made shows
    /// it. Needs `browser.rp-id` and `browser.origins`. Since 0.2.
    #[serde(default)]
    pub passkeys: String,
    /// Accounts that may approve, a line each: `NAME ISSUER SUBJECT`, the subject being the claim `sub`. Needs
    /// `browser.issuers`. Since 0.2.
    #[serde(default)]
    pub accounts: String,
    /// `admin` if they may approve what the policy leaves to administrators. Default `responder`. Since 0.2.
    #[serde(default = "responder")]
    pub role: AccessRole,
    /// Name in plans and in the audit log of the person who approves with a token.
    #[serde(default)]
    pub principal: Option<Principal>,
    /// `token` if a bearer token shall prove approvals. The server sees the token, so a server that is taken over can
    /// approve with it: for evaluation only. Since 0.2.
    #[serde(default)]
    pub proof: Option<WeakProof>,
    /// SHA-256 of that token, in hex.
    #[serde(default)]
    pub token_sha256: Option<String>,
}

const fn responder() -> AccessRole {
    AccessRole::Responder
}

/// A proof that is not bound to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WeakProof {
    /// The approver's bearer token.
    Token,
}

/// The approvers of a configuration, checked.
#[derive(Debug, Default)]
pub(crate) struct Approvers {
    signers: Vec<(TenantId, Signer)>,
    tokens: Vec<TokenApprover>,
    passkeys: Vec<(TenantId, ListedPasskey)>,
    accounts: Vec<(TenantId, ListedAccount)>,
    administrators: BTreeSet<(TenantId, Principal)>,
}

/// An approver whose token proves approvals.
#[derive(Debug)]
struct TokenApprover {
    tenant: TenantId,
    principal: Principal,
    /// SHA-256 of the token, in lower-case hex.
    sha256: String,
}

impl Approvers {
    /// Checks that each approver can be recognised, and told from the others.
    ///
    /// # Errors
    /// Returns the field, the reason and a remedy, without anything that may be a credential.
    pub(super) fn read(listed: &[Approver]) -> Result<Self, String> {
        let mut approvers = Self::default();
        for (index, approver) in listed.iter().enumerate() {
            let field = format!("field approvers[{index}]");
            if approver.proof.is_some() || approver.token_sha256.is_some() || approver.principal.is_some() {
                approvers.add_token(approver, &field)?;
            } else {
                let is_browser = !approver.passkeys.is_empty() || !approver.accounts.is_empty();
                approvers.add_browsers(approver, &field)?;
                if !is_browser || !approver.allowed_signers.is_empty() {
                    approvers.add_signers(approver, &field)?;
                }
            }
        }
        Ok(approvers)
    }

    fn add_signers(&mut self, approver: &Approver, field: &str) -> Result<(), String> {
        let field = format!("{field}.allowed-signers");
        let parsed = allowed_signers::parse(&approver.allowed_signers).map_err(|error| format!("{field}: {error}"))?;
        if parsed.is_empty() {
            return Err(format!(
                "{field}: there is no key that may sign approvals; write a line such as `wardroom approver keygen` \
                 prints"
            ));
        }
        for signer in parsed {
            let same_key = |(tenant, other): &&(TenantId, Signer)| {
                *tenant == approver.tenant && other.key == signer.key && other.principal != signer.principal
            };
            if let Some((_, other)) = self.signers.iter().find(same_key) {
                let (one, two) = (&other.principal, &signer.principal);
                return Err(format!("{field}: {one} and {two} have the same key; create one for each approver"));
            }
            self.add_role(approver, &signer.principal);
            self.signers.push((approver.tenant.clone(), signer));
        }
        Ok(())
    }

    fn add_browsers(&mut self, approver: &Approver, field: &str) -> Result<(), String> {
        let tenant = &approver.tenant;
        let passkeys = browser_approvers::parse_passkeys(&approver.passkeys);
        for passkey in passkeys.map_err(|error| format!("{field}.passkeys: {error}"))? {
            if let Some(other) = self.passkey(tenant, &passkey.id).filter(|other| other.principal != passkey.principal)
            {
                let (one, two) = (&other.principal, &passkey.principal);
                return Err(format!("{field}.passkeys: {one} and {two} have the same passkey; make one for each"));
            }
            self.add_role(approver, &passkey.principal);
            self.passkeys.push((tenant.clone(), passkey));
        }
        let accounts = browser_approvers::parse_accounts(&approver.accounts);
        for account in accounts.map_err(|error| format!("{field}.accounts: {error}"))? {
            let known = self.account(tenant, &account.issuer, &account.subject);
            if let Some(other) = known.filter(|other| other.principal != account.principal) {
                let (one, two) = (&other.principal, &account.principal);
                return Err(format!("{field}.accounts: {one} and {two} have the same account"));
            }
            self.add_role(approver, &account.principal);
            self.accounts.push((tenant.clone(), account));
        }
        Ok(())
    }

    fn add_token(&mut self, approver: &Approver, field: &str) -> Result<(), String> {
        let keys = [&approver.allowed_signers, &approver.passkeys, &approver.accounts];
        if keys.into_iter().any(|lines| !lines.is_empty()) {
            return Err(format!("{field}: it has both keys and a token; write two entries"));
        }
        if approver.proof != Some(WeakProof::Token) {
            return Err(format!(
                "{field}: a bearer token no longer proves approvals, since the server sees it: replace it with \
                 `allowed-signers` and the line that `wardroom approver keygen` prints; or add `proof: token` to keep \
                 it, for evaluation only"
            ));
        }
        let principal = approver.principal.clone();
        let principal = principal.ok_or_else(|| format!("{field}: the field principal is missing"))?;
        let hash = approver.token_sha256.as_deref().unwrap_or_default();
        let field = format!("{field}.token-sha256");
        if hash.len() != SHA256_DIGITS || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            let found = format!("{field}: {} characters, which are not {SHA256_DIGITS}", hash.chars().count());
            return Err(format!(
                "{found} hexadecimal digits; write what `printf %s TOKEN | sha256sum | cut -c1-64` prints"
            ));
        }
        let (tenant, sha256) = (approver.tenant.clone(), hash.to_ascii_lowercase());
        if let Some(other) = self.tokens.iter().find(|other| other.tenant == tenant && other.sha256 == sha256) {
            let one = &other.principal;
            return Err(format!("{field}: {one} and {principal} have the same token; create one for each approver"));
        }
        self.add_role(approver, &principal);
        self.tokens.push(TokenApprover { tenant, principal, sha256 });
        Ok(())
    }

    fn add_role(&mut self, approver: &Approver, principal: &Principal) {
        if approver.role == AccessRole::Admin {
            self.administrators.insert((approver.tenant.clone(), principal.clone()));
        }
    }

    /// Returns the access role of an approver.
    pub(crate) fn role_of(&self, tenant: &TenantId, principal: &Principal) -> AccessRole {
        let is_administrator = self.administrators.contains(&(tenant.clone(), principal.clone()));
        if is_administrator { AccessRole::Admin } else { AccessRole::Responder }
    }

    /// Returns the approver of a tenant with this key.
    pub(crate) fn signer(&self, tenant: &TenantId, key: &KeyData) -> Option<&Signer> {
        let found = self.signers.iter().find(|(of_tenant, signer)| of_tenant == tenant && signer.key == *key);
        found.map(|(_, signer)| signer)
    }

    /// Returns the approver's passkey of a tenant with this id.
    pub(crate) fn passkey(&self, tenant: &TenantId, id: &str) -> Option<&ListedPasskey> {
        let found = self.passkeys.iter().find(|(of_tenant, passkey)| of_tenant == tenant && passkey.id == id);
        found.map(|(_, passkey)| passkey)
    }

    /// Returns the approver's account of a tenant.
    pub(crate) fn account(&self, tenant: &TenantId, issuer: &str, subject: &str) -> Option<&ListedAccount> {
        let is_it = |(of_tenant, account): &&(TenantId, ListedAccount)| {
            of_tenant == tenant && account.issuer == issuer && account.subject == subject
        };
        self.accounts.iter().find(is_it).map(|(_, account)| account)
    }

    /// Returns the approver of a tenant whose token, listed with `proof: token`, this is. Compares in constant time.
    pub(crate) fn authenticate(&self, tenant: &TenantId, token: &str) -> Option<&Principal> {
        let digest = sha256_hex(token.as_bytes());
        let is_theirs = |approver: &&TokenApprover| {
            approver.tenant == *tenant && bool::from(approver.sha256.as_bytes().ct_eq(digest.as_bytes()))
        };
        self.tokens.iter().find(is_theirs).map(|approver| &approver.principal)
    }

    /// Returns whether an approval still counts: its key, or `None` for a token, is still listed for the principal.
    pub(crate) fn is_approver(&self, tenant: &TenantId, principal: &Principal, key: Option<&str>) -> bool {
        match key {
            Some(key) => self.named_keys().any(|(of_tenant, of_principal, _, named)| {
                of_tenant == tenant && of_principal == principal && named == key
            }),
            None => self.tokens.iter().any(|approver| approver.tenant == *tenant && approver.principal == *principal),
        }
    }

    /// Returns the approvers without the hashes of their tokens.
    pub(super) fn listed(&self) -> Vec<ListedApprover> {
        let keys = self.named_keys().map(|(tenant, principal, proof, key)| ListedApprover {
            principal: principal.clone(),
            tenant: tenant.clone(),
            proof,
            token_id: String::new(),
            key,
        });
        let tokens = self.tokens.iter().map(|approver| ListedApprover {
            principal: approver.principal.clone(),
            tenant: approver.tenant.clone(),
            proof: ProofKind::Token,
            token_id: token_id(&approver.sha256),
            key: String::new(),
        });
        keys.chain(tokens).collect()
    }

    /// Returns every key, passkey and account by the name that the ledger has for it.
    fn named_keys(&self) -> impl Iterator<Item = (&TenantId, &Principal, ProofKind, String)> {
        let signers = self.signers.iter();
        let signers = signers.map(|(tenant, it)| (tenant, &it.principal, ProofKind::Ssh, fingerprint(it)));
        let passkeys = self.passkeys.iter();
        let passkeys = passkeys.map(|(tenant, it)| (tenant, &it.principal, ProofKind::Passkey, passkey_key(&it.id)));
        let accounts = self.accounts.iter();
        let accounts = accounts.map(|(tenant, it)| (tenant, &it.principal, ProofKind::Oidc, account_key(it)));
        signers.chain(passkeys).chain(accounts)
    }
}

fn fingerprint(signer: &Signer) -> String {
    signer.key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn read(entries: serde_json::Value) -> Result<Approvers, String> {
        Approvers::read(&serde_json::from_value::<Vec<Approver>>(entries).unwrap())
    }

    fn token(principal: &str, hash: &str) -> serde_json::Value {
        serde_json::json!({ "principal": principal, "tenant": "main", "proof": "token", "token-sha256": hash })
    }

    #[test]
    fn a_hash_that_matches_no_token_is_refused() {
        let hash = sha256_hex(b"token");
        assert!(read([token("alice", &hash), token("bob", &sha256_hex(b"other").to_uppercase())].into()).is_ok());
        for wrong in [
            format!("{hash}  -"),
            format!("{hash}\n"),
            format!(" {hash}"),
            format!("{hash}00"),
            format!("sha256:{hash}"),
            hash.replace(|_: char| true, "g"),
            hash.chars().skip(1).collect(),
            "wr_the-token-itself".to_owned(),
            String::new(),
        ] {
            let error = read([token("bob", &sha256_hex(b"other")), token("alice", &wrong)].into()).unwrap_err();
            assert!(error.contains("approvers[1].token-sha256") && error.contains("sha256sum"), "{wrong:?}: {error}");
            assert!(wrong.is_empty() || !error.contains(wrong.trim()), "{error} does not repeat what may be a secret");
        }
        let error = read([token("alice", &hash), token("bob", &hash.to_uppercase())].into()).unwrap_err();
        assert!(error.contains("alice and bob have the same token"), "{error}");
    }

    #[test]
    fn a_token_needs_the_explicit_weak_mode() {
        let hash = sha256_hex(b"token");
        let old = serde_json::json!([{ "principal": "alice", "tenant": "main", "token-sha256": hash }]);
        let error = read(old).unwrap_err();
        assert!(error.contains("approver keygen") && error.contains("proof: token"), "{error}");
        let approvers = read([token("alice", &hash)].into()).unwrap();
        let main = TenantId::main();
        assert_eq!(approvers.authenticate(&main, "token").map(Principal::as_str), Some("alice"));
        assert_eq!(approvers.authenticate(&TenantId::new("other").unwrap(), "token"), None);
        assert_eq!(approvers.listed()[0].proof, ProofKind::Token);
    }

    #[test]
    fn keys_are_those_of_one_person_and_tenant() {
        let keys = |tenant: &str, lines: &str| serde_json::json!({ "tenant": tenant, "allowed-signers": lines });
        let approvers = read([keys("main", &format!("alice {KEY}\n"))].into()).unwrap();
        let listed = approvers.listed();
        assert_eq!(listed[0].key, "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ");
        let (alice, main) = (&listed[0].principal, TenantId::main());
        assert!(approvers.is_approver(&main, alice, Some(&listed[0].key)));
        assert!(
            !approvers.is_approver(&main, alice, Some("SHA256:other")) && !approvers.is_approver(&main, alice, None)
        );
        assert!(!approvers.is_approver(&TenantId::new("other").unwrap(), alice, Some(&listed[0].key)));
        let error = read([keys("main", &format!("alice {KEY}\nbob {KEY}"))].into()).unwrap_err();
        assert!(error.contains("alice and bob have the same key"), "{error}");
        let error = read([keys("main", "")].into()).unwrap_err();
        assert!(error.contains("approvers[0].allowed-signers: there is no key"), "{error}");
        assert!(read([keys("main", &format!("alice {KEY}")), keys("other", &format!("bob {KEY}"))].into()).is_ok());
    }
}
