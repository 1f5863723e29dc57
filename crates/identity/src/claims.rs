//! Claims of a verified token: issuer, audience and times.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use wardroom_domain::Timestamp;

use crate::jws::TokenError;

/// How far the clocks of issuer and this machine may differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Longest text of a claim that is read.
const MAX_CLAIM_CHARS: usize = 1000;

/// The claims of a token. Numbers may have fractions, as RFC 7519 allows.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    pub(crate) iss: Option<String>,
    pub(crate) sub: Option<String>,
    #[serde(default)]
    pub(crate) aud: Audience,
    pub(crate) azp: Option<String>,
    pub(crate) exp: Option<f64>,
    pub(crate) nbf: Option<f64>,
    pub(crate) iat: Option<f64>,
    pub(crate) auth_time: Option<f64>,
    pub(crate) nonce: Option<String>,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

/// One audience or several.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, several): (Option<&String>, &[String]) = match self {
            Self::None => (None, &[]),
            Self::One(one) => (Some(one), &[]),
            Self::Several(several) => (None, several),
        };
        one.into_iter().chain(several).map(String::as_str)
    }
}

impl Claims {
    /// Checks issuer, audience and times.
    pub(crate) fn check(&self, issuer: &str, audience: &str, now: Timestamp) -> Result<(), TokenError> {
        let refuse = |claim: &'static str, reason: &str| Err(TokenError::Claim { claim, reason: reason.to_owned() });
        if self.iss.as_deref() != Some(issuer) {
            return refuse("iss", "it is not the configured issuer");
        }
        if !self.aud.iter().any(|one| one == audience) {
            return refuse("aud", "the token is for another audience");
        }
        let (now, skew) = (now.seconds_f64(), CLOCK_SKEW.as_secs_f64());
        match self.exp {
            Some(end) if end + skew > now => {}
            Some(_) => return refuse("exp", "the token has expired"),
            None => return refuse("exp", "it is missing: a token that never expires is not accepted"),
        }
        if self.nbf.is_some_and(|begin| begin > now + skew) {
            return refuse("nbf", "the token is not valid yet");
        }
        if self.iat.is_some_and(|at| at > now + skew) {
            return refuse("iat", "the token was issued in the future; check the clocks");
        }
        Ok(())
    }

    /// Checks that the client is the party that the token was issued to, if it has several audiences.
    pub(crate) fn check_party(&self, client_id: &str) -> Result<(), TokenError> {
        let several = self.aud.iter().count() > 1;
        let is_party = self.azp.as_deref().map_or(!several, |party| party == client_id);
        if is_party {
            Ok(())
        } else {
            Err(TokenError::Claim { claim: "azp", reason: "it is another client".to_owned() })
        }
    }

    /// Returns when the person authenticated, if the issuer says so.
    pub fn authenticated_at(&self) -> Option<Timestamp> {
        self.auth_time.map(|seconds| Timestamp::from_millis((seconds * 1000.0) as i64))
    }

    /// Returns a claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = match name {
            "sub" => self.sub.as_deref(),
            "iss" => self.iss.as_deref(),
            name => self.others.get(name).and_then(Value::as_str),
        };
        found.filter(|text| text.chars().count() <= MAX_CLAIM_CHARS)
    }

    /// Returns a claim that is a list of texts, or one text with words between spaces, as `scope` is.
    pub fn words(&self, name: &str) -> Vec<String> {
        match self.others.get(name) {
            Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }
}
