//! What takes too many rows to stand beside the code.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod histograms;
mod midnight;
