//! What the browser says about a request: its type, challenge and page.

use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::passkey_error::{PasskeyError, malformed};
use super::relying_party::RelyingParty;

#[derive(Debug, Deserialize)]
pub(super) struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    is_cross_origin: bool,
}

impl ClientData {
    pub(super) fn parse(json: &[u8]) -> Result<Self, PasskeyError> {
        serde_json::from_slice(json).map_err(|_| malformed("client_data", "it is not the JSON of a client's data"))
    }

    /// Checks that it is about this request, from a page of the relying party.
    pub(super) fn check(&self, kind: &str, challenge: &str, party: &RelyingParty) -> Result<(), PasskeyError> {
        let refuse = |reason: String| Err(PasskeyError::Refused(reason));
        if self.kind != kind {
            return refuse(format!("it is the answer to another kind of request than {kind}"));
        }
        if !bool::from(self.challenge.as_bytes().ct_eq(challenge.as_bytes())) {
            return refuse("it is the answer to another challenge".to_owned());
        }
        if !party.origins.contains(&self.origin) {
            let (found, expected) = (self.origin.chars().take(200).collect::<String>(), party.origins.join(", "));
            return refuse(format!("it was made on a page of {found}, not of {expected}"));
        }
        if self.is_cross_origin {
            return refuse("it was made in a frame of another page".to_owned());
        }
        Ok(())
    }
}
