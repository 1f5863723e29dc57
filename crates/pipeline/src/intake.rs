//! Intake: from an accepted request to the bus and to the queue of decoded batches.

pub mod batch_queue;
pub mod source_intake;
