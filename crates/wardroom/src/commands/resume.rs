//! `wardroom resume`: signs with the approver's key.

use wardroom_cli::output::CommandResult;

pub(crate) use wardroom_cli::resume::ResumeArgs;

use crate::approver_key::sign;

pub(crate) fn run(args: ResumeArgs) -> CommandResult {
    wardroom_cli::resume::run(args, sign)
}
