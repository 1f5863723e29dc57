//! The signal that points are judged with.

use wardroom_signals::{Direction, SignalUnit};

use crate::signals::SignalCell;

/// The signal that points of one group and slot feed.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) cell: SignalCell,
    pub(super) unit: SignalUnit,
    pub(super) direction: Direction,
    /// When the graph and the list of measured entities had a sign of it last, in ms.
    pub(super) refreshed_ms: i64,
}
