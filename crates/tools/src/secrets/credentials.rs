//! What a server of credentials needs to sign in: credentials of another kind.

use wardroom_respond::ToolError;

use super::secret::{Exposed, Secret};

/// Resolves credentials, and remembers those that are not references.
pub(super) trait Credentials {
    /// Resolves a credential.
    fn resolve(&self, secret: &Secret) -> Result<Exposed, ToolError>;

    /// Remembers a value to be cut out of outputs.
    fn remember(&self, value: &str);
}
