//! What diagnosis wants to know before it answers.

use wardroom_domain::Entity;

/// Evidence that is not among the facts. The caller that has it adds it to [`crate::Facts`] and notes the need as
/// answered, with or without a result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Log templates of an entity, with their rates before and since the onset.
    Templates(Entity),
    /// Shifts of the series of an entity that belong to no signal.
    Series(Entity),
    /// Signals and relations of an entity that others depend on.
    Surroundings(Entity),
}
