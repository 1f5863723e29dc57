//! `wardroom incidents`: signs with the approver's key.

use wardroom_cli::output::CommandResult;

pub(crate) use wardroom_cli::incidents::IncidentsArgs;

use crate::approver_key::sign;

pub(crate) fn run(args: IncidentsArgs) -> CommandResult {
    wardroom_cli::incidents::run(args, sign)
}
