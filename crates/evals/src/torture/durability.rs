//! Bars of durability: kills, power loss, failing disks, damaged files.

pub(super) mod corrupt_bus;
pub(super) mod failing_disk;
pub(super) mod full_disk;
pub(super) mod power_loss;
mod sequential_oracle;
pub(super) mod server_kills;
