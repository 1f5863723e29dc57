//! What a process of ours is to its system: its clock, its walls, and where it may die on purpose.
//!
//! Server and executor share it, and know nothing else of each other but the words of `domain::executor`.

pub mod clock;
pub mod crash;
pub mod isolation;
