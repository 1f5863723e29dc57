//! Why a request is refused, inside the crate.

use wardroom_domain::executor::RefusalCode;

/// Code and explanation of a refused request.
pub(crate) type Refusal = (RefusalCode, String);
