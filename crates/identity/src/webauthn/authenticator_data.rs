//! What the authenticator signs: relying party, flags, counter, and a new credential.

use ring::digest::{SHA256, digest};

use super::passkey_error::{PasskeyError, malformed};
use super::relying_party::RelyingParty;

const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const HAS_CREDENTIAL: u8 = 1 << 6;
/// Bytes of the hash, the flags and the counter.
const FIXED_BYTES: usize = 37;
const AAGUID_BYTES: usize = 16;

#[derive(Debug)]
pub(super) struct AuthenticatorData {
    party_hash: [u8; 32],
    flags: u8,
    pub(super) sign_count: u32,
    pub(super) attested: Option<AttestedCredential>,
}

#[derive(Debug)]
pub(super) struct AttestedCredential {
    pub(super) id: Vec<u8>,
    /// COSE.
    pub(super) public_key: Vec<u8>,
}

impl AuthenticatorData {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, PasskeyError> {
        let short = || malformed("authenticator_data", "it is too short");
        let (fixed, rest) = bytes.split_at_checked(FIXED_BYTES).ok_or_else(short)?;
        let (party_hash, flags_and_count) = fixed.split_first_chunk::<32>().ok_or_else(short)?;
        let (flags, count) = flags_and_count.split_first().ok_or_else(short)?;
        let sign_count = u32::from_be_bytes(count.try_into().map_err(|_| short())?);
        let attested = if flags & HAS_CREDENTIAL == 0 { None } else { Some(AttestedCredential::parse(rest)?) };
        Ok(Self { party_hash: *party_hash, flags: *flags, sign_count, attested })
    }

    /// Checks the relying party, and that a person was present and verified.
    pub(super) fn check(&self, party: &RelyingParty) -> Result<(), PasskeyError> {
        let refuse = |reason: String| Err(PasskeyError::Refused(reason));
        if digest(&SHA256, party.id.as_bytes()).as_ref() != self.party_hash {
            return refuse(format!("the passkey is one of another site than {}", party.id));
        }
        if self.flags & USER_PRESENT == 0 || self.flags & USER_VERIFIED == 0 {
            return refuse("the authenticator has not verified the person (PIN, finger or face)".to_owned());
        }
        Ok(())
    }
}

impl AttestedCredential {
    fn parse(bytes: &[u8]) -> Result<Self, PasskeyError> {
        let short = || malformed("authenticator_data", "its credential is too short");
        let (_, rest) = bytes.split_at_checked(AAGUID_BYTES).ok_or_else(short)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let (id, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(short)?;
        // Extensions may follow the key: the reader stops after it.
        let mut reader = rest;
        let key: ciborium::Value =
            ciborium::from_reader(&mut reader).map_err(|_| malformed("authenticator_data", "its key is no CBOR"))?;
        drop(key);
        let public_key = rest.split_at_checked(rest.len() - reader.len()).ok_or_else(short)?.0.to_vec();
        Ok(Self { id: id.to_vec(), public_key })
    }
}
