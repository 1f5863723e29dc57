//! Bar 9a: fuzzes every parser of bytes from outside.

mod fuzz_target;
pub(super) mod fuzzing;
mod request_targets;
mod source_targets;
mod state_targets;
mod text_targets;
