//! What a process of ours is to its system: its clock, its walls, and where it may die on purpose.
//!
//! ```text
//! server   ─┬─► clock      the one place that reads the time
//!           ├─► heap       gives back what nobody uses of it
//! executor ─┼─► isolation  Landlock: which files there are for it
//!           └─► crash      where a test may have it die
//! ```
//!
//! Problem: server and executor are two processes that must not know each other, and need the same few things of the system. Model:
//! they stand here, below both. Guarantee: nothing here parses what came from outside, and nothing here decides.

pub mod clock;
pub mod crash;
pub mod heap;
pub mod isolation;
