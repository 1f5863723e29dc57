//! Why a passkey's answer is not accepted.

/// Why a passkey's answer is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasskeyError {
    /// A part cannot be read.
    #[error("{part}: {reason}")]
    Malformed {
        /// Name of the part.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It answers another request, page or relying party, or no person was asked.
    #[error("{0}")]
    Refused(String),
    /// The signature is not the passkey's.
    #[error("the signature is not one of this passkey over this request")]
    WrongSignature,
}

pub(super) fn malformed(part: &'static str, reason: &str) -> PasskeyError {
    PasskeyError::Malformed { part, reason: reason.to_owned() }
}
