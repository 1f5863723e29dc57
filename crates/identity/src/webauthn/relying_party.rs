//! The pages that may use a passkey.

/// The relying party: which pages may use a passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelyingParty {
    /// Its id: a domain, such as `wardroom.example.com`.
    pub id: String,
    /// The origins of its pages, such as `https://wardroom.example.com`.
    pub origins: Vec<String>,
}
